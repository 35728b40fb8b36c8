package report

import "github.com/artstore/artstore-pki/audit"

// Held returns how many rows a page holds.
func Held(r audit.Renderer) int { return len(r.(*htmlRenderer).worst.rows) }
