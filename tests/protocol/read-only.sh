# -o ro
# No upper: everything can be read and nothing changed.
ls -laR . >/dev/null
cat hello data private >/dev/null
stat hello both link >/dev/null
df . >/dev/null
getfattr -d -m - labelled >/dev/null
