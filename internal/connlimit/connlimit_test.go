package connlimit_test

import (
	"net/netip"
	"testing"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

func TestAddressOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:4711":                      "192.0.2.7/32",
		"[::ffff:192.0.2.7]:4711":             "192.0.2.7/32",
		"[2001:db8:1:2:3:4:5:6]:1":            "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff:ffff:ffff:1]:443": "2001:db8:1:2::/64",
		"[2001:db8:1:3::1]:1":                 "2001:db8:1:3::/64",
		"[fe80::1%eth0]:1":                    "fe80::/64",
	} {
		if got := connlimit.AddressOf(remote); got != netip.MustParsePrefix(want) {
			t.Errorf("%s counts as %s, want %s", remote, got, want)
		}
	}
	for _, remote := range []string{"", "@", "/run/sock", "192.0.2.7", "host:1"} {
		if got := connlimit.AddressOf(remote); got != (netip.Prefix{}) {
			t.Errorf("%q counts as %s, want no address", remote, got)
		}
	}
}
