#!/usr/bin/env bash
# build.sh DIRECTORY: the image's build context, from the host's PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")"

out=$1
bin=$(find /usr/lib/postgresql -path '*/bin/postgres' | sort -V | tail -1)
[[ -n $bin ]] || { echo "no PostgreSQL server here: install Debian's package postgresql" >&2; exit 1; }
lib=$(dirname "$(dirname "$bin")")
version=$(basename "$lib")
root=$out/root
mkdir -p "$root"/{etc,tmp,run/postgresql,var/lib/postgresql,usr/{bin,local/bin,lib/locale},usr/share/postgresql}
ln -s usr/bin "$root/bin"
ln -s usr/lib "$root/lib"
ln -s ../run "$root/var/run"
chmod 1777 "$root/tmp" "$root/run/postgresql"

# The server finds its files beside the path that it was compiled with.
mkdir -p "$root/usr/lib/postgresql/$version"
cp -a "$lib/bin" "$lib/lib" "$root/usr/lib/postgresql/$version/"
rm -rf "$root/usr/lib/postgresql/$version/lib"/{bitcode,pgxs,llvmjit*}
ln -s "$version/bin" "$root/usr/lib/postgresql/bin"
cp -a "/usr/share/postgresql/$version" "$root/usr/share/postgresql/"
rm -rf "$root/usr/share/postgresql/$version/man"
cp -a /usr/share/zoneinfo "$root/usr/share/"
cp -aL /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
for tool in sh cat chmod mkdir mv rm rmdir id; do
  cp -L "$(command -v "$tool")" "$root/usr/bin/$tool"
done

# Their libraries, and the loader, at the paths where they are looked for.
find "$root/usr/bin" "$root/usr/lib/postgresql" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null |
  awk '/=> \//{print $3} /^[[:space:]]*\/lib/{print $1}' | sort -u |
  while read -r library; do
    mkdir -p "$root/usr$(dirname "${library#/usr}")"
    cp -L "$library" "$root/usr${library#/usr}"
  done
if [[ -d $root/usr/lib64 ]]; then ln -s usr/lib64 "$root/lib64"; fi

printf 'root:x:0:0::/:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\npostgres:x:999:\n' >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
chown -R 999:999 "$root/var/lib/postgresql" "$root/run/postgresql"
install -m 755 docker-entrypoint.sh "$root/usr/local/bin/docker-entrypoint.sh"
cp Containerfile "$out/Containerfile"
