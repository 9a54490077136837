package apnstest_test

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A write returns before the data is read while the buffer has room, and blocks when the
// buffer is full.
func TestBufferSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, func(*apns.Message) error { return apnstest.Fault{End: apnstest.EndSilence} }, func(s *apnstest.Server) {
			s.BufferSize = 10_000
		})
		c := open(t, s, "2195")
		if _, err := c.Write(build(t, message(1))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		n := 0
		var err error
		for err == nil {
			_, err = c.Write(make([]byte, 1000))
			n++
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || n < 9 || n > 10 {
			t.Errorf("write %d of 1000 bytes failed with %v; want the deadline at about 10", n, err)
		}
	})
}
