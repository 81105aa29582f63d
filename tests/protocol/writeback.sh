# -o writeback=1
# The kernel gathers writes and keeps the times of what it wrote.
cat hello >/dev/null
for word in one two three; do echo $word; done >made
echo more >>hello
dd if=/dev/zero of=blocks bs=512 count=6 2>/dev/null
touch -d '2001-02-03 04:05:06.789' made
sync -f .
truncate -s 100 blocks
echo last >>blocks
mv made renamed
rm hello
sync -f .
stat renamed blocks >/dev/null
