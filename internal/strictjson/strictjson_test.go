package strictjson_test

import (
	"testing"

	"github.com/artstore/artstore-pki/internal/strictjson"
)

func TestDecode(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1}`:              "",
		" {\"a\":1}\n":         "",
		``:                     "not the JSON expected",
		`{"a":"secret"}`:       "not the JSON expected",
		`{"a":1,"secret":2}`:   "not the JSON expected",
		`{"a":1`:               "not the JSON expected",
		`{"a":1} {}`:           "more than one JSON value",
		`{"a":1} x`:            "more than one JSON value",
		`{"a":1,      "a":2}`:  "",
		`{"a":1}             `: "longer than 19 bytes",
	} {
		var v struct {
			A int `json:"a"`
		}
		got := ""
		if err := strictjson.Decode([]byte(text), 19, &v); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
