#!/bin/busybox sh
# The machine's first process: makes the machine ready, runs /command in /job, and sends what came
# of it to the host. The status is last in the archive: without it the host takes everything for a
# failure.

/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp

for module in /modules/*; do
    insmod "$module" || echo "init: $module cannot be loaded"
done

# The host's ends of these are files, one for each name: virtio's ports have the names, and where
# there are none it is the serial ports behind the console's, in this order.
mkdir /ports
number=1
for name in stdout stderr results; do
    for port in /sys/class/virtio-ports/*; do
        if [ "$(cat "$port/name" 2>/dev/null)" = $name ]; then
            ln -s "/dev/${port##*/}" /ports/$name
        fi
    done
    if [ ! -e /ports/$name ]; then
        stty -F /dev/ttyS$number raw 115200
        ln -s /dev/ttyS$number /ports/$name
    fi
    number=$((number + 1))
done

export HOME=/root LANG=C.UTF-8 PATH=/usr/bin:/bin:/usr/sbin:/sbin PYTHONPATH=/job
mkdir -p /job/results
cd /job
sh /command </dev/null >/ports/stdout 2>/ports/stderr
echo $? >status

tar -c results status >/ports/results
poweroff -f
