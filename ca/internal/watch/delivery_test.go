package watch_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/watch"
)

// TestParseDelivery: a report that is not well formed is none, and is no fault of the request.
func TestParseDelivery(t *testing.T) {
	good := "served=4711&served_at=postgres://db:5432&servers=2&served_for=3"
	v, _ := url.ParseQuery(good)
	want := watch.Delivery{Serial: "4711", Address: "postgres://db:5432", Servers: 2, For: 3 * time.Second}
	var got watch.Delivery
	if !got.Parse(v) || got != want {
		t.Errorf("%+v", got)
	}
	if _, err := watch.ParseQuery(v); err != nil {
		t.Error(err)
	}
	for key, values := range map[string][]string{
		"served":     {"", "0x1267", "-1", "4711 ", strings.Repeat("1", 65)},
		"served_at":  {"", "a b:1", "a:1\n", "\x1b[2J:1", "ä:1", strings.Repeat("a", 301)},
		"servers":    {"", "0", "-1", "1001", "x"},
		"served_for": {"", "-1", "1.5", "9999999999"},
	} {
		for _, bad := range values {
			v, _ := url.ParseQuery(good)
			v.Set(key, bad)
			if got.Parse(v) {
				t.Errorf("%s=%q: %+v", key, bad, got)
			}
		}
	}
}

// TestReportDelivery: what a lineage has said already is not recorded again.
func TestReportDelivery(t *testing.T) {
	h := newHub(10)
	first := watch.Delivery{Serial: "1", Address: "a:1", Servers: 1, For: time.Second}
	later, other := first, first
	later.For, other.Servers = time.Hour, 2
	for _, step := range []struct {
		lineage string
		said    watch.Delivery
		want    bool
	}{{"a", first, true}, {"a", later, false}, {"b", later, true}, {"a", other, true}, {"a", first, true}} {
		if got := h.ReportDelivery(step.lineage, step.said); got != step.want {
			t.Errorf("%+v: %v", step, got)
		}
	}
	h.ForgetDelivery("a")
	if !h.ReportDelivery("a", first) {
		t.Error("a delivery that was not recorded is not reported again")
	}
}
