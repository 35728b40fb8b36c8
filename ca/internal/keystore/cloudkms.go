//go:build cloudkms

package keystore

import _ "go.step.sm/crypto/kms/cloudkms" // the store cloudkms:
