#!/bin/busybox sh
# The machine's first process: makes the machine ready, runs /command in /job, and sends what came
# of it to the host. The status is sent last: without it the host takes everything for a failure.

/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp

for module in /modules/*; do
    insmod "$module" || echo "init: $module cannot be loaded"
done

# The host's ends of these are files, one for each name.
mkdir /ports
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name"
    ln -s "/dev/${port##*/}" "/ports/$name"
done

export HOME=/root LANG=C.UTF-8 PATH=/usr/bin:/bin:/usr/sbin:/sbin PYTHONPATH=/job
mkdir -p /job/results
cd /job
sh /command </dev/null >/ports/stdout 2>/ports/stderr
status=$?

tar -c -C /job/results . >/ports/results && echo "$status" >/ports/status
poweroff -f
