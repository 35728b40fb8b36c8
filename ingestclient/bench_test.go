package ingestclient_test

import (
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
)

// BenchmarkTokenHit takes the cached token, as every request does; uploads are
// measured in bench/ingest.
func BenchmarkTokenHit(b *testing.B) {
	w := newServers(b, nil)
	if _, err := w.c.Upload(b.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.c.TakeToken(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
