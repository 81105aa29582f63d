# -o rw
# Everyday work in a mount with everything that the kernel offers.
as() { setpriv --reuid "$1" --regid "$1" --clear-groups -- sh -euc "$2"; }
may() { "$@" 2>/dev/null || true; }
ls -la . both opaque deep/a/b/c listed >/dev/null
cat hello both/new both/same both/old data deep/a/b/c/leaf private ancient >/dev/null
may cat gone
may cat no/such/file
stat hello both link fifo null ancient program >/dev/null
readlink link dangling >/dev/null
df . >/dev/null
getfattr -d -m - labelled hello >/dev/null
getfacl -p hello both >/dev/null
mkdir made made/inner
mkdir -m 2770 made/shared
may mkdir made
echo new >made/file
echo more >>made/file
echo changed >both/old
head -c 100 data >made/part
dd if=/dev/zero of=made/sparse bs=1 count=10 seek=100000 2>/dev/null
truncate -s 50 data
truncate -s 5 made/file
mv made/file made/renamed
python3 -c 'import os; os.rename("made/part", "made/replaced"); os.rename("made/replaced", "made/part")'
mv both/same both/moved
mv deep deeper
python3 -c 'import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def rename2(a, b, flags): libc.renameat2(-100, a, -100, b, flags)
rename2(b"made/renamed", b"both/new", 2)
rename2(b"both/moved", b"hello", 1)
rename2(b"made/part", b"made/part2", 4)'
ln -s target made/symlink
ln made/renamed made/hard
ln twin made/third
echo twins >>twins/other
stat twin made/third >/dev/null
mkfifo made/fifo
mknod made/null c 1 3
chmod 600 hello
chmod u+s program
chown 1000:1001 made/renamed
touch -d '2001-02-03 04:05:06.789' made/renamed both
touch -d '1960-01-01' made/hard
setfattr -n user.one -v value hello
setfattr -n user.one -v another hello
setfattr -n trusted.two -v '' made
getfattr -d -m - hello made >/dev/null
may getfattr -n user.none hello
setfattr -x user.one hello
may setfattr -x user.one hello
setfacl -m u:1000:rw,g:1001:r labelled
setfacl -d -m u:1000:rwx made
mkdir made/inherits
getfacl -p labelled made made/inherits >/dev/null
setfacl -b labelled
fallocate -l 8192 made/space
fallocate -p -o 0 -l 4096 made/space
python3 -c 'import ctypes, os
a, b = os.open("program", os.O_RDONLY), os.open("made/copy", os.O_RDWR | os.O_CREAT)
os.copy_file_range(a, b, 10, 3, 7)
os.lseek(os.open("made/sparse", os.O_RDONLY), 4096, os.SEEK_DATA)
os.lseek(os.open("made/sparse", os.O_RDONLY), 0, os.SEEK_HOLE)
os.fsync(b); os.fdatasync(b); os.fsync(os.open("made", os.O_RDONLY))
t = os.open("made", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(t, b"unnamed")
assert 0 == ctypes.CDLL(None).linkat(-100, b"/proc/self/fd/%d" % t, -100, b"made/named", 0x400)
k = os.open("made/victim", os.O_RDWR | os.O_CREAT)
os.write(k, b"x"); os.unlink("made/victim"); os.write(k, b"y"); os.fstat(k)
os.pread(k, 10, 0); os.close(k)'
sync -f .
may as 1000 'cat private; echo no >hello; echo yes >>made/renamed; test -w hello'
may as 1000 'echo x >>program'
rm both/old labelled link
may rm no-such-file
may rmdir made
rm -r deeper
mkdir deeper
echo again >both/old
rm -r opaque listed
find . -ls >/dev/null
echo 2 >/proc/sys/vm/drop_caches
find . -ls >/dev/null
