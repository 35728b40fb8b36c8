package ingestclient_test

import (
	"errors"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
)

func TestMetaThatMakesNoSense(t *testing.T) {
	f := &fakeElements{}
	c := over(t, config(), ingestclient.NewFakeIdentity(f.generation(1)))
	for _, m := range []ingestclient.Meta{
		{FileID: "a/b"}, {Retention: "for ever"}, {TTLDays: -1}, {TTLDays: 366}, {TTLDays: 5, Retention: "permanent"},
	} {
		if _, err := send(t, c, m); !errors.Is(err, ingestclient.ErrRejected) || f.asked() != "" {
			t.Errorf("%+v: %v", m, err)
		}
	}
}
