#!/bin/sh
# Makes the root of the image: sh root.sh ROOT VENV SBOM_SCRIPT. Runs while it is built, on the Debian that its packages come from.
#
# In it: the C library, what Python and the wheels link with, Python's standard library, authorities, and the environment VENV.
# Left out: shell, package manager, pip, tests, documentation but for licences, character sets and locales of the C library,
# parts of the standard library that nothing here imports, and symbols that only a debugger reads.
set -eu
root=$1 venv=$2 sbom=$3

# Of Debian, with what each is for.
packages="
  libc6        libgcc-s1     libstdc++6
  zlib1g       libssl3       libexpat1   libffi8   libbz2-1.0   liblzma5   libuuid1
  python3.11-minimal         libpython3.11-minimal  libpython3.11-stdlib
  base-files   ca-certificates  media-types  netbase
"

mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/var/lib/dpkg/status.d" /build/debs
cd /build/debs
# shellcheck disable=SC2086
apt-get download -qq -o APT::Sandbox::User=root $packages
for deb in *.deb; do
  dpkg-deb --extract "$deb" "$root"
  # Where scanners look for packages in images that have no dpkg.
  dpkg-deb --field "$deb" >"$root/var/lib/dpkg/status.d/${deb%%_*}"
done

python=$root/usr/lib/python3.11
rm -rf "$root"/usr/share/man "$root"/usr/share/info "$root"/usr/share/locale "$root"/usr/share/lintian "$root"/usr/share/bug \
  "$root"/usr/share/python3 "$root"/usr/share/base-files "$root"/usr/share/binfmts "$root"/usr/share/applications \
  "$root"/usr/share/ca-certificates "$root"/usr/share/pixmaps "$root"/usr/sbin "$root"/sbin "$root"/bin \
  "$root"/usr/lib/*/gconv "$root"/usr/lib/*/audit "$root"/etc/update-motd.d "$root"/etc/init.d "$root"/etc/default \
  "$python"/lib2to3 "$python"/pydoc_data "$python"/idlelib "$python"/turtledemo "$python"/ensurepip "$python"/test
find "$root/usr/share/doc" \( -type f -o -type l \) ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
find "$root/usr/bin" -mindepth 1 ! -name 'python3.11' -delete
# Modules whose libraries are not here.
for module in _crypt _curses _curses_panel _dbm _gdbm _sqlite3 _tkinter nis ossaudiodev readline; do
  rm -f "$python"/lib-dynload/$module.cpython-*.so
done

install -d -m 755 "$root/etc/ssl/certs" "$root/usr/lib/ssl" "$root/etc/lexora"
install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
ln -sf /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
printf 'root:x:0:0:root:/:/sbin/nologin\nlexora:x:10001:10001:lexora:/var/lib/lexora:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nlexora:x:10001:\n' >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
# A place for a volume; some builders give all that is copied to root.
install -d -m 1777 -o 10001 -g 10001 "$root/var/lib/lexora"
install -d -m 1777 "$root/tmp"

mkdir -p "$root/opt"
cp -a "$venv" "$root/opt/"
rm -rf "$root$venv/include" "$root$venv"/bin/[Aa]ctivate*
find "$root$venv/bin" -mindepth 1 ! -name 'python*' ! -name lexora -delete
find "$root" -name '*.so*' -type f -exec strip --strip-unneeded --preserve-dates {} + 2>/dev/null || true

python3.11 "$sbom" "$root" "$root$venv/lib/python3.11/site-packages" >/build/sbom.json
install -D -m 644 /build/sbom.json "$root/usr/share/sbom/lexora.cdx.json"

# Compiled once here, since the image is read only and each start would compile all that is imported.
find "$root" -name __pycache__ -type d -prune -exec rm -rf {} +
chroot "$root" /usr/bin/python3.11 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.11 "$venv/lib" >/dev/null || true
chroot "$root" "$venv/bin/lexora" --version
