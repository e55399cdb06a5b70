#!/bin/sh
# Fetches what the power cuts need: an emulator, a disk with a cache, a kernel. The kernel is
# unpacked into the folder that is named, not installed. Only the machine's own packages are asked.
set -eu
folder=$1
packages="qemu-system-x86 nbdkit busybox-static cpio e2fsprogs"
missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "first: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    apt-get update
    # shellcheck disable=SC2086 # a list of words
    apt-get install --yes --no-install-recommends $missing
fi
[ -e "$folder/vmlinuz" ] && exit 0

mkdir -p "$folder/modules"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
apt-get download "$kernel"
dpkg-deb -x "$kernel"_*.deb .
# In the order in which they are loaded.
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk \
    failover net_failover virtio_net; do
    cp "$(find lib -name "$module.ko")" "$folder/modules"
    echo "$module"
done >"$folder/modules/order"
# Last: its presence says that all is here.
cp boot/vmlinuz-* "$folder/vmlinuz"
