package apnstest_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// An error packet is one TLS record, unless Split asks for several.
func TestSplit(t *testing.T) {
	for split, want := range map[int][]int{0: {6}, 1: {1, 1, 1, 1, 1, 1}, 4: {4, 2}, 9: {6}} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, func(*apns.Message) error {
				return apnstest.Fault{Err: apns.StatusInvalidToken, Split: split, Delay: time.Hour}
			}, nil)
			c := open(t, s, "2195")
			began := time.Now()
			if _, err := c.Write(build(t, message(1))); err != nil {
				t.Fatal(err)
			}
			var got []int
			for buf := make([]byte, 100); ; {
				n, err := c.Read(buf)
				if n > 0 {
					got = append(got, n)
				}
				if err != nil {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("split %d: read pieces of %v bytes, want %v", split, got, want)
			}
			if d := time.Since(began); d != time.Hour {
				t.Errorf("the packet took %v, want 1h", d)
			}
		})
	}
}

// The way in which a connection ends decides whether the client can still write.
func TestEnds(t *testing.T) {
	for end, want := range map[apnstest.End]error{ // nil: the client can write
		apnstest.EndCloseNotify: nil,
		apnstest.EndFIN:         nil,
		apnstest.EndFINThenRST:  syscall.EPIPE,
		apnstest.EndRST:         syscall.EPIPE,
	} {
		onBothNetworks(t, end.String(), func(t *testing.T, memory bool) {
			s := start(t, memory, func(m *apns.Message) error { return apnstest.Fault{End: end} }, nil)
			c := open(t, s, "2195")
			var err error
			for i := range 100 {
				if _, err = c.Write(build(t, message(uint32(i)))); err != nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if want == nil && err != nil || want != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("in memory %v, %v: Write returned %v, want %v", memory, end, err, want)
			}
			if want == nil {
				if err := s.Wait(t.Context(), 100); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
