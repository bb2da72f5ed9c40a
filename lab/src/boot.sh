# boot.sh ROOT FILES: a machine whose pid 1 is systemd, on this machine's own files, of which it sees a copy on write.
# What is below FILES lies over them. Started in namespaces of its own.
set -e
root=$1 files=$2
mount --make-rprivate /
mount -t tmpfs -o size=1g tmpfs "$root"
mkdir "$root/up" "$root/work" "$root/new"
mount -t overlay -o "lowerdir=/,upperdir=$root/up,workdir=$root/work" overlay "$root/new"
cd "$root/new"
mkdir -p dev proc sys run tmp old
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
mkdir dev/net dev/pts dev/shm
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
# As udev makes it.
mknod -m 666 dev/net/tun c 10 200
ln -s /proc/self/fd dev/fd
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
# Only what the test brings is started, beside what every machine has.
mount -t tmpfs tmpfs etc/systemd/system
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' > etc/systemd/system/lab.target
cp -r "$files/." .
: > etc/machine-id
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service systemd-resolved.service \
    systemd-timesyncd.service systemd-logind.service getty.target; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
pivot_root . old
umount -l /old
mount --make-rshared /
export container=lab
exec /bin/env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=lab.target --log-target=console --show-status=no
