#!/bin/busybox sh
# The first process of the virtual machine: makes it fit, runs the proof, switches off.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
stty -F /dev/ttyS1 -opost 2>/dev/null

end() {
    [ -z "$1" ] || echo "failed=$1" | tee /dev/ttyS1
    sync
    poweroff -f
    sleep 60
}

# Modules need each other in an order that differs between kernels: round after round.
for round in 1 2 3 4; do
    for module in /modules/*.ko; do
        insmod "$module" 2>/dev/null && rm "$module"
    done
done
mount -t ext4 /dev/vda /data || end "no disk; these modules would not load: $(ls /modules)"
ip link set lo up || end "no loopback"

# The 1M profile, as on a real machine. What the kernel refuses shows.
sysctl -p /sysctl.conf >/tmp/sysctl 2>&1 || { cat /tmp/sysctl && end "the kernel refuses the profile"; }
files=$(sed -n 's/.* hard nofile \([0-9]*\)$/\1/p' /limits.conf | head -n 1)
ulimit -n "$files" || end "no $files open files"

cp /parameters /data/
sh /inside.sh /data /dev/ttyS1
end
