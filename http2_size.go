package apns

import "time"

// A sizer finds how many messages an HTTP/2 connection needs in flight: as many as the
// round trip takes, and no more, since whatever is in flight is in doubt when the
// connection is cut. It starts small, and doubles for as long as that brings more answers
// a second.
type sizer struct {
	n          int           // messages in flight, at most
	rate       float64       // answers a second with half of n; 0: unknown
	began      time.Duration // when the measurement began
	count      int           // answers since then, and 1; 0: there is no measurement
	backlogged bool          // messages waited all the time since then
	holdUntil  time.Duration // nothing is measured before
}

const (
	minInFlight = 100
	// minMeasure is how long a measurement takes at least. Where the server answers at
	// once, shorter ones would differ by more than minGain by chance.
	minMeasure = 100 * time.Millisecond
	// minGain is by how much the rate has to rise for another size to be kept.
	minGain = 1.1
	// holdTime is how long a size is kept after a larger one was of no use.
	holdTime = 10 * time.Second
)

// measureLocked takes note of n answers. waited says that messages waited to be sent when
// they came. A measurement lasts for as many answers as may be in flight: the size, or the
// server's limit if that is less.
func (s *http2Session) measureLocked(n int, waited bool) {
	z, limit := &s.size, s.conn.Limit()
	if z.count == 0 {
		z.began, z.backlogged = s.d.now(), true // the answers of this read are not counted
		z.count = 1
		return
	}
	z.count += n
	z.backlogged = z.backlogged && waited
	if !z.backlogged {
		s.limited, z.count = false, 0
		return
	}
	if z.count <= min(z.n, limit) {
		return
	}
	now := s.d.now()
	if z.n >= limit {
		s.limited, z.count = true, 0
		return
	}
	if now-z.began < minMeasure || now < z.holdUntil {
		return
	}
	rate := float64(z.count-1) / (now - z.began).Seconds()
	if rate >= z.rate*minGain {
		z.n, z.rate = min(2*z.n, limit), rate
	} else {
		z.n = max(minInFlight, z.n/2)
		z.rate = 0
		z.holdUntil = now + holdTime
	}
	z.count = 0
}
