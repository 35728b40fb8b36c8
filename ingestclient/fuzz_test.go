package ingestclient_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/ingestclient"
)

// FuzzTokenAnswer expects an error that quotes nothing of the answer, or a token that
// fits into one line of a header, with a life of 0 (unknown) or between a millisecond
// and a day.
func FuzzTokenAnswer(f *testing.F) {
	for _, s := range []string{
		`{"access_token":"a.b.c","token_type":"Bearer","expires_in":300}`, `{"access_token":"x","expires_in":"1e9"}`,
		`{"access_token":"` + jwt(`{"cnf":{"x5t#S256":"t"}}`) + `"}`, `{"access_token":"a","expires_in":-1}`, `null`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ingestclient.ParseToken(b)
		if err != nil {
			var raw struct {
				Token string `json:"access_token"`
			}
			if json.Unmarshal(b, &raw) == nil && len(raw.Token) > 20 && strings.Contains(err.Error(), raw.Token) {
				t.Fatalf("the token is in %q", err)
			}
			return
		}
		token := got.Secret.Expose()
		if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("token %q", token)
		}
		if got.Life != 0 && (got.Life < time.Millisecond || got.Life > 24*time.Hour) {
			t.Fatalf("life %v", got.Life)
		}
		if got.X5T != "" && !got.Cnf || got.Cnf && !got.Known {
			t.Fatalf("binding %+v", got)
		}
	})
}

var tokenLike = regexp.MustCompile(`[0-9A-Za-z_.~+/=-]{40,}`)

// FuzzErrorBody expects a code of at most 64 plain characters and a message of at most
// 200 printable ones in valid UTF-8, neither with text as long as a token.
func FuzzErrorBody(f *testing.F) {
	for _, s := range []string{
		`{"detail":"x"}`, `{"detail":[{"msg":"y","input":"secret"}]}`, `{"detail":{"error":"a","message":"b"}}`,
		`{"error":"invalid_client","error_description":"d"}`, `{"error":{"code":"C","message":"m"}}`, "text\x00\xff", `<html>`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		code, message := ingestclient.ParseError(b)
		if len(code) > 64 || utf8.RuneCountInString(message) > 201 || !utf8.ValidString(message) {
			t.Fatalf("%q %q", code, message)
		}
		if strings.ContainsFunc(code+message, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q %q", code, message)
		}
		if tokenLike.MatchString(code) || tokenLike.MatchString(message) {
			t.Fatalf("%q %q", code, message)
		}
	})
}

var hex64 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// FuzzUploadAnswer expects that an answer without error has an id that is one element of
// a path, a size of -1 or more, and a checksum that is empty or has 64 lower-case hex
// digits.
func FuzzUploadAnswer(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	for _, s := range []string{
		`{"file_id":"a-b","file_size":3,"checksum":"` + sum + `"}`, `{"file_id":"a","size":3,"checksum":"SHA256:` + sum + `"}`,
		`{"file_id":"../x"}`, `{"file_id":"a","size":-7}`, `{"file_id":1}`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ingestclient.ParseAnswer(b)
		if err != nil {
			return
		}
		if a.FileID == "" || strings.ContainsAny(a.FileID, "/\\?#%\x00") || strings.HasPrefix(a.FileID, ".") || len(a.FileID) > 128 {
			t.Fatalf("id %q", a.FileID)
		}
		if a.Size < -1 || a.SHA256 != "" && !hex64.MatchString(a.SHA256) {
			t.Fatalf("%+v", a)
		}
	})
}

// FuzzFileList expects that a page without error has a total of 0 or more, and that each
// of its files has an id that is one element of a path, a size of 0 or more and a whole
// checksum.
func FuzzFileList(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	for _, s := range []string{
		`{"files":[{"file_id":"a-b","file_size":3,"checksum":"` + sum + `","created_at":"2026-01-01T00:00:00.5+00:00"}],"total":1}`,
		`{"items":[{"file_id":"a","size":0,"checksum":"` + sum + `","status":"active","uploaded_at":"x"}],"total":9}`,
		`{"items":[{"file_id":"../x"}],"total":1}`, `{"items":[],"total":0}`, `{"files":null}`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		files, total, err := ingestclient.ParsePage(b)
		if err != nil {
			return
		}
		if total < 0 {
			t.Fatalf("total %d", total)
		}
		for _, f := range files {
			if f.FileID == "" || strings.ContainsAny(f.FileID, "/\\?#%\x00") || f.Size < 0 || !hex64.MatchString(f.SHA256) {
				t.Fatalf("%+v", f)
			}
		}
	})
}

// FuzzFileName expects that a file name never ends its quoted value or its line.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{"a.bin", "a\"b", "a\r\nb", "dir/a", "\xff\x00", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := ingestclient.CleanName(s); got == "" || strings.ContainsAny(got, "\"\r\n\x00") || !utf8.ValidString(got) {
			t.Fatalf("%q became %q", s, got)
		}
	})
}
