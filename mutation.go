//go:build !mutation

package apns

// mutated reports whether a mistake is made on purpose, to see that the simulation
// notices it. There is none without the build tag mutation.
func mutated(mutation) bool { return false }
