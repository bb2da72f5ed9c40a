# Pid 1 of a guest. Its root is this machine's, read-only; what it writes goes to a layer in memory over that.
# The folder of this script is the run's own: settings and command come from there, the status goes there.
ctl=$(dirname "$0")
. "$ctl/settings"
set -e
mount -t proc proc /proc
# However this script ends, so does the guest: without an end in order the kernel would print its registers.
trap 'sync; echo o > /proc/sysrq-trigger; sleep 60' EXIT
release=$(uname -r)
insmod "$modules/$release/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/up /mnt/work /mnt/new
mount -t overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work overlay /mnt/new
cd /mnt/new
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs dev dev
mount -t tmpfs -o mode=755 run run
mkdir -p dev/pts dev/shm run/guest run/tmp "usr/lib/modules/$release" old
mount -t devpts devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t hostfs -o "$ctl" ctl run/guest
mount -t hostfs -o "$modules/$release" modules "usr/lib/modules/$release"
while read -r folder; do
    mkdir -p ".$folder"
    mount -t hostfs -o "$folder" share ".$folder"
done < "$ctl/shares"
pivot_root . old
modprobe -a ipv6 tun
chmod 666 /dev/net/tun
echo guest > /proc/sys/kernel/hostname
ip link set lo up
export TMPDIR=/run/tmp HOME=/root
if [ -n "$terminal" ]; then
    stty -F /dev/tty1 sane
    setsid --ctty --wait sh /run/guest/command < /dev/tty1 > /dev/tty1 2>&1 && status=0 || status=$?
else
    stty -F /dev/tty1 raw -echo
    stty -F /dev/tty2 raw -echo
    sh /run/guest/command < /dev/null > /dev/tty1 2> /dev/tty2 && status=0 || status=$?
fi
echo "$status" > /run/guest/status
