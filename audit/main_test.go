package audit_test

import (
	"testing"
	"time"
)

// TestMain fixes the time zone: tables show local times, and golden ones must be the same everywhere.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	m.Run()
}
