package errtext_test

import (
	"errors"
	"testing"

	"github.com/artstore/artstore-pki/internal/errtext"
)

func TestOf(t *testing.T) {
	if got := errtext.Of(nil); got != "" {
		t.Errorf("nil is %q", got)
	}
	if got := errtext.Of(errors.New("disk full")); got != "disk full" {
		t.Errorf("got %q", got)
	}
}
