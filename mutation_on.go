//go:build mutation

package apns

import "os"

// mutated reports whether the mistake is the one that the environment asks for.
func mutated(m mutation) bool { return os.Getenv("APNS_MUTATION") == string(m) }
