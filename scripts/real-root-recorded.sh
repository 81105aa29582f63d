# Sourced by real-root.sh: a whole Debian root whose owners, modes and devices
# are in xattrs, since its disk does not store them.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # in real-root.sh

# What is done with it, in the chroot. A program of root with setuid is one,
# though on the disk it is another user's.
USE='
dpkg -l | grep -q "^ii  bash "
apt-get -q install --simulate --no-install-recommends python3-requests | grep -q "^Inst python3-requests"
apt-get -q install -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io python3-requests
python3 -c "import requests"
[ "$(stat -c %a:%u:%g /etc/shadow)" = 640:0:42 ]
! setpriv --reuid 33 --regid 33 --clear-groups cat /etc/shadow 2>/dev/null
setpriv --reuid 33 --regid 33 --groups 42 cat /etc/shadow >/dev/null
[ "$(stat -c %a:%u /usr/bin/su)" = 4755:0 ]; [ -u /opt/app/bin/suid ]
[ "$(setpriv --reuid 33 --regid 33 --clear-groups sh -c "cp /usr/bin/id /tmp/id && id -u")" = 33 ]
cp /usr/bin/id /opt/id; chmod 4755 /opt/id; [ "$(setpriv --reuid 33 --regid 33 --clear-groups /opt/id -u -r)" = 33 ]
[ "$(setpriv --reuid 33 --regid 33 --clear-groups /opt/id -u)" = 0 ]
apt-get -q remove -y python3-requests; ! python3 -c "import requests" 2>/dev/null
'

# `user.` xattrs do not exist on symlinks: they keep the daemon's owner.
but_symlinks() { sed -E '/"type": "symlink"/s/"owner": "[^"]*", //' "$T/$1" >"$T/$1.but"; }

# As root, through the mount of an ordinary user: run_recorded UID.
run_recorded() {
	local user=$1 found
	mount_recorded() {
		rm -f "$T/mount.err"
		timeout 30 "$PYTHON" "$REPO/tests/identities/mount_as.py" "$user" "$T/m" "$PROGRAM" mount --lower "$T/lower" --upper "$T/upper" \
			--work "$T/workdir" -o "xattr_permissions=2${UNIONMOUNT_TEST_TRANSPORT:+,transport=$UNIONMOUNT_TEST_TRANSPORT}" \
			</dev/null >"$T/mount.err" 2>&1 || fail "mount: $(cat "$T/mount.err")"
	}
	mkdir "$T/m" "$T/lower" "$T/upper" "$T/workdir"
	chown "$user:$user" "$T/lower" "$T/upper" "$T/workdir"
	tar -C "$CACHE/merged" -cf "$T/root.tar" --acls --xattrs --xattrs-include='*' --numeric-owner --sparse .
	mount_recorded
	tar -C "$T/m" -xpf "$T/root.tar" --warning=no-timestamp --delay-directory-restore --acls --xattrs --xattrs-include='*' --numeric-owner ||
		fail "unpacking"
	say "unpacked"
	manifest unpacked "$T/m" --ino
	unmount_union
	found=$(find "$T/upper" ! -uid "$user" -o ! -type f ! -type d ! -type l | head -n 3)
	[ -z "$found" ] || fail "on the disk and not the user's, or no plain file: $found"
	mount_recorded
	manifest remount "$T/m" --ino
	compare "$T/unpacked" "$T/remount" || fail "the remount is not what was left"
	drop_ino "$T/remount"
	but_symlinks remount
	cp "$CACHE/merged.manifest" "$T/packed"
	but_symlinks packed
	compare "$T/packed.but" "$T/remount.but" || fail "what was unpacked is not what was packed"
	in_root "$T/m" bash -euc "$USE
		mknod /opt/null c 1 3; chown 33:8 /opt/null; [ \"\$(stat -c %t:%T:%u:%g /opt/null)\" = 1:3:33:8 ]" >"$T/used" 2>&1 || { tail -n 30 "$T/used"; fail "using it"; }
	say "used"
	manifest used.mount "$T/m" --ino
	unmount_union
	mount_recorded
	manifest used.remount "$T/m" --ino
	compare "$T/used.mount" "$T/used.remount" || fail "the remount is not what was left"
	unmount_union
	say "passed in $SECONDS s"
}

# An ordinary user, without help and without a user namespace, unpacks what others packed.
unpack_as_user() {
	tar -C "$CACHE/merged" -cf "$T/root.tar" --acls --xattrs --xattrs-include='*' --numeric-owner --sparse .
	chmod 644 "$T/root.tar"
	cp "$CACHE/merged.manifest" "$T/packed"
	runuser -u "$TEST_USER" -- "$PROGRAM" layer apply "$T/root.tar" "$T/lower" >"$T/applied" 2>&1 || fail "layer apply: $(cat "$T/applied")"
	all_plain "$T/lower"
	say "unpacked"
}

# all_plain DIR: all of it is plain files, directories and symlinks of the user.
all_plain() {
	local found
	found=$(find "$1" ! -user "$TEST_USER" -o ! -type f ! -type d ! -type l | head -n 3)
	[ -z "$found" ] || fail "on the disk and not the user's, or no plain file: $found"
}

# Inside the user's namespace, as its root.
use_recorded() {
	mount_recorded() {
		timeout 30 "$PROGRAM" mount --lower "$T/lower" --upper "$T/upper" --work "$T/workdir" -o "xattr_permissions=2" \
			${UNIONMOUNT_TEST_TRANSPORT:+-o "transport=$UNIONMOUNT_TEST_TRANSPORT"} "$T/m" </dev/null >"$T/mount.err" 2>&1 || fail "mount: $(cat "$T/mount.err")"
	}
	mkdir "$T/m" "$T/upper" "$T/workdir"
	# The root of the view is the upper's own directory.
	touch --reference="$T/lower" "$T/upper"
	mount_recorded
	manifest fresh "$T/m"
	but_symlinks fresh
	but_symlinks packed
	compare "$T/packed.but" "$T/fresh.but" || fail "what was unpacked is not what was packed"
	say "mounted"
	in_root "$T/m" bash -euc "$USE" >"$T/used" 2>&1 || { tail -n 30 "$T/used"; fail "using it"; }
	say "used"
	manifest used.mount "$T/m" --ino
	unmount_union
	mount_recorded
	manifest used.remount "$T/m" --ino
	unmount_union
	compare "$T/used.mount" "$T/used.remount" || fail "the remount is not what was left"
	# In here the user is root.
	TEST_USER=root
	all_plain "$T/upper"
	all_plain "$T/lower"
	say "passed in $SECONDS s"
}
