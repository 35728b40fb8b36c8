package devstack_test

import (
	"net/http"
	"testing"

	"github.com/artstore/artstore-pki/internal/devstack"
)

// BenchmarkValidate measures the verification of a token, which a Storage Element does on each request,
// with and without its cache.
func BenchmarkValidate(b *testing.B) {
	s := start(b, devstack.AdminConfig{}, devstack.StorageConfig{})
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
	check(b, err)
	req.Header.Set("Authorization", "Bearer "+s.token(b))
	for name, forget := range map[string]bool{"cached": false, "not cached": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if forget {
					s.storage.ForgetTokens()
				}
				check(b, s.storage.VerifyToken(req))
			}
		})
	}
}
