#!/bin/sh
# Makes a base for the Dockerfile out of this machine, where no registry of images can be reached: sh base.sh NAME
# For Debian 12 with buildah and what the Dockerfile would install, and for root. The image has no /usr of its own: build with
# --volume /usr:/usr:ro. What ships comes from Debian's archive all the same.
set -eu
name=$1
container=$(buildah from scratch)
root=$(buildah mount "$container")
mkdir -p "$root"/dev "$root"/proc "$root"/sys "$root"/usr "$root"/root "$root"/run "$root"/opt "$root"/var/log \
  "$root"/etc/apt/sources.list.d "$root"/var/lib/apt/lists/partial "$root"/var/cache/apt/archives/partial "$root"/var/lib/dpkg
install -d -m 1777 "$root/tmp" "$root/var/tmp"
for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done
for part in alternatives ca-certificates debian_version dpkg group ld.so.cache ld.so.conf ld.so.conf.d passwd python3.11 ssl; do
  cp -a "/etc/$part" "$root/etc/"
done
cp -a /etc/apt/apt.conf.d /etc/apt/preferences.d /etc/apt/trusted.gpg.d "$root/etc/apt/"
for sources in /etc/apt/sources.list /etc/apt/sources.list.d/debian*; do
  if [ -e "$sources" ]; then cp -a "$sources" "$root$sources"; fi
done
cp -a /var/lib/dpkg/status "$root/var/lib/dpkg/"
buildah umount "$container" >/dev/null
buildah commit --quiet --rm "$container" "$name" >/dev/null
