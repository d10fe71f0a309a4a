#!/bin/sh
# Builds the tool and prints the directory of its programs:
#   cluster, kubectl (the same program), helm, pause
# They are kept outside the clone under the hash of what they are made of, so
# that a second run, of any clone, takes no time. Progress goes to stderr.
set -eu
cd "$(dirname "$0")"

command -v go >/dev/null || { echo "go not found: install Go 1.26 or newer (https://go.dev/dl)" >&2; exit 1; }

# kubernetes and helm are at the versions of go.mod.
version=$(sed -n 's|^\tk8s.io/kubernetes \(v[0-9.]*\)$|\1|p' go.mod)
helm=$(sed -n 's|^\thelm.sh/helm/v3 \(v[0-9.]*\) .*$|\1|p;s|^\thelm.sh/helm/v3 \(v[0-9.]*\)$|\1|p' go.mod)
minor=${version#v1.}

hash=$({
	go env GOVERSION GOARCH
	find . -path ./internal/testapp -prune -o \( -name '*.go' ! -name '*_test.go' -o -name 'go.*' -o -name build.sh \) -print |
		LC_ALL=C sort | xargs sha256sum
} | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/spillway/bin
out=$cache/cluster-$hash

if [ -x "$out/cluster" ]; then
	touch "$out" 2>/dev/null || :
	echo "$out"
	exit
fi

echo "building Kubernetes $version and helm $helm (5 to 10 minutes the first time, then seconds)" >&2
mkdir -p "$cache"
# What no run has asked for in two weeks, and what a killed build left.
find "$cache" -maxdepth 1 \( -name 'cluster-*' -mtime +14 -o -name '.building-*' -mtime +1 \) -exec rm -rf {} +
next=$(mktemp -d "$cache/.building-XXXXXX")
trap 'rm -rf "$next"' EXIT INT TERM
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -trimpath -buildvcs=false"
v=k8s.io/component-base/version
go build -ldflags "-s -w -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*} -X $v.gitTreeState=clean \
	-X k8s.io/client-go/pkg/version.gitVersion=$version" -o "$next/cluster" . >&2
go build -ldflags "-s -w" -o "$next/pause" ./pause >&2
go build -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=$helm" -o "$next/helm" helm.sh/helm/v3/cmd/helm >&2
ln -s cluster "$next/kubectl"
chmod 755 "$next"
# In one step: another build of the same may be running, or this one be killed.
mv -T "$next" "$out" 2>/dev/null || [ -x "$out/cluster" ]
echo "$out"
