#!/bin/bash
# Boots Debian's kernel in QEMU, without hardware virtualisation, and runs moat there: tests/vm/smoke.sh, and the tests of packages that need nothing but a
# kernel. Takes a few minutes. Installs QEMU from Debian and takes the kernel from its package, without installing that.
set -eu
GO=${GO:-go}
./scripts/deps.sh qemu-system-x86 busybox-static
vm=$PWD/build/vm
mkdir -p "$vm"
if [ ! -e "$vm/vmlinuz" ]; then
	(cd "$vm" && rm -rf deb && mkdir deb && cd deb && p=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1) &&
		apt-get download -q "$p" 2>/dev/null && dpkg-deb --fsys-tarfile "$p"_*.deb | tar x --wildcards './boot/vmlinuz-*' && mv boot/vmlinuz-* ../vmlinuz && cd .. && rm -rf deb)
fi
rm -rf "$vm/root"
mkdir -p "$vm"/root/{bin,proc,sys,dev,tmp,run,etc,new,tests}
cp /bin/busybox "$vm/root/bin/"
cp tests/vm/init "$vm/root/init"
cp tests/vm/smoke.sh "$vm/root/tests/"
CGO_ENABLED=0 "$GO" build -trimpath -ldflags "-s -w" -o "$vm/root/bin/moat" ./cmd/moat
for p in platform/stub fsgofer; do
	CGO_ENABLED=0 "$GO" test -c -ldflags "-s -w" -o "$vm/root/tests/${p//\//-}.test" "./$p"
done
(cd "$vm/root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >../initrd)
rm -rf "$vm/root"
timeout -k 5 "${VM_LIMIT:-900}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3g -display none -serial stdio -monitor none -nic none -no-reboot \
	-kernel "$vm/vmlinuz" -initrd "$vm/initrd" -append "console=ttyS0 quiet panic=-1 mitigations=off clocksource=tsc tsc=reliable" </dev/null | tee "$vm/log"
grep -q '^vm: all well' "$vm/log" || {
	echo "vm.sh: the tests in the virtual machine failed (build/vm/log)"
	exit 1
}
