//go:build !unix

package settings

import "os"

// tooOpen cannot tell: there are no modes here.
func tooOpen(os.FileInfo) string { return "" }
