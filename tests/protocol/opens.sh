# -o without=no_open_support:no_opendir_support:setxattr_ext:handle_killpriv_v2:do_readdirplus:parallel_dirops
# A kernel of few capabilities: files and directories are opened and closed, SETXATTR has its short form.
cat hello data >/dev/null
ls -l . both >/dev/null
echo new >made
cat made >/dev/null
echo more >>made
echo instead >made
: >empty
setfattr -n user.one -v value hello
chmod 2755 made program
setfacl -m u:1000:r made
stat made >/dev/null
setpriv --reuid 1000 --regid 1000 --clear-groups -- sh -c 'echo x >>program' 2>/dev/null || true
python3 -c 'import os
f = os.open("made/../both/old", os.O_RDWR | os.O_TRUNC)
os.write(f, b"over"); os.fsync(f); os.close(f)
d = os.open("both", os.O_RDONLY); os.fsync(d); os.listdir(d); os.close(d)
t = os.open("both", os.O_TMPFILE | os.O_RDWR); os.write(t, b"x"); os.close(t)' 2>/dev/null || true
ls both >/dev/null
rm -r both
