package report

import "github.com/artstore/artstore-pki/audit"

// Held is how many rows a page holds so far.
func Held(r audit.Renderer) int { return len(r.(*htmlRenderer).worst.rows) }
