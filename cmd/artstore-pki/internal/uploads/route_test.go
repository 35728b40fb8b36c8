package uploads

import "testing"

func TestRoute(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/auth/token": "/api/v1/auth/token", "/x/api/v1/files/upload": "/x/api/v1/files/upload",
		"/api/v1/files/0a1b": "/api/v1/files/{id}", "/api/v1/files/0a1b/download": "/api/v1/files/{id}/download",
	} {
		if got := route(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
