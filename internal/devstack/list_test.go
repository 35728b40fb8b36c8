package devstack_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/artstore/artstore-pki/internal/devstack"
)

// Both elements list what they have, the newest first, in pages of their own size.
func TestListInBothDialects(t *testing.T) {
	for _, d := range []devstack.Dialect{"python", "go"} {
		t.Run(string(d), func(t *testing.T) {
			s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dialect: d})
			token := s.token(t)
			names := map[devstack.Dialect][3]string{"python": {"files", "skip", "file_size"}, "go": {"items", "offset", "size"}}[d]
			list := func(query string) (entries []any, total float64) {
				body := s.do(t, http.MethodGet, s.storageURL+"/api/v1/files"+query, "", nil, bearer(token)).json(t)
				return body[names[0]].([]any), body["total"].(float64)
			}
			entries, total := list("")
			want(t, "entries of an empty element", len(entries), 0)
			want(t, "total of an empty element", total, 0)
			for i := range 3 {
				s.upload(t, token, fmt.Sprint("f", i), []byte{byte(i)})
			}
			entries, total = list("?limit=2")
			want(t, "page", len(entries), 2)
			want(t, "total", total, 3)
			first := entries[0].(map[string]any)
			want(t, "newest", first["original_filename"].(string), "f2")
			want(t, "size", first[names[2]].(float64), 1)
			want(t, "checksum", first["checksum"].(string), sumOf([]byte{2}))
			entries, _ = list("?limit=2&" + names[1] + "=2")
			want(t, "rest", len(entries), 1)
			want(t, "oldest", entries[0].(map[string]any)["original_filename"].(string), "f0")
			entries, _ = list("?" + names[1] + "=99")
			want(t, "behind the end", len(entries), 0)
		})
	}
}

func TestListRefusals(t *testing.T) {
	for d, bad := range map[devstack.Dialect]map[string]int{
		"python": {"?skip=x": 422, "?limit=-1": 422, "?limit=100000": 200, "?offset=x": 200},
		"go":     {"?offset=x": 400, "?limit=0": 400, "?limit=1001": 400, "?limit=1000": 200, "?skip=x": 200},
	} {
		s := start(t, devstack.AdminConfig{}, devstack.StorageConfig{Dialect: d})
		token := s.token(t)
		for query, status := range bad {
			want(t, string(d)+query, s.do(t, http.MethodGet, s.storageURL+"/api/v1/files"+query, "", nil, bearer(token)).status, status)
		}
		want(t, "no token", s.do(t, http.MethodGet, s.storageURL+"/api/v1/files", "", nil).status, http.StatusUnauthorized)
		other := s.token(t, "files:write")
		want(t, "no files:read", s.do(t, http.MethodGet, s.storageURL+"/api/v1/files", "", nil, bearer(other)).status, http.StatusForbidden)
	}
}
