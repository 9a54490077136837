package apnstest

import (
	"fmt"
	"strconv"
	"time"

	"example.com/apns"
)

// A Fault ends a connection in an unusual way. A handler returns it about the
// message where that is to happen. The zero Fault ends the stream without a
// word.
//
// Over HTTP/2, where each message has a stream of its own, it is about that
// alone, unless End says otherwise. The zero Fault leaves it without an answer
// for good.
type Fault struct {
	// Err is what the server says: an apns.Status, or an *apns.PushError, which
	// can have a wrong ID or none, or what else a Handler returns. It says nothing if Err is nil, and discards
	// the message, or if it is apns.StatusNoError, and accepts it.
	Err error

	// Delay is how long the server takes to say so. What arrives meanwhile is
	// discarded.
	Delay time.Duration

	// Split has the server write in pieces of so many bytes, each in a TLS
	// record of its own. Zero means all at once.
	Split int

	// Cut is how many bytes are missing at the end of what the server says: of
	// an error packet, or, for a Fault from OnConnect, of the feedback list.
	Cut int

	// End is how the stream ends.
	End End

	// Reason is what a GOAWAY gives, if that is how it ends.
	Reason apns.Reason
}

// Error describes the fault.
func (f Fault) Error() string {
	return fmt.Sprintf("fault: %v, delay %v, split %d, cut %d, end %v", f.Err, f.Delay, f.Split, f.Cut, f.End)
}

// An End is how the server ends its stream. What the client still writes is read
// and discarded, unless the constant says otherwise.
type End int

const (
	EndClean    End = iota // TLS's close_notify, then TCP's FIN
	EndTogether            // the same, in one piece with what the server says
	EndBare                // the FIN alone
	EndClose               // the socket is closed: what the client still writes draws a reset
	EndReset               // a reset
	EndStall               // it does not end, but the server stops reading; over HTTP/2, there is no answer

	// Over HTTP/2 the next three are further ways, EndReset and EndTogether are
	// about the message's stream, and EndClose and EndBare close the connection
	// without a GOAWAY. On the binary wire the three are EndClean.
	EndRefuse    // the stream is reset with REFUSED_STREAM: it was not looked at
	EndGoAway    // a GOAWAY; what is on its way is answered, and then the connection ends
	EndGoAwayNow // a GOAWAY that says that this message was not looked at, and the end of the connection
)

// String returns, for example, "clean".
func (e End) String() string {
	names := [...]string{EndClean: "clean", EndTogether: "together", EndBare: "bare", EndClose: "close", EndReset: "reset", EndStall: "stall",
		EndRefuse: "refuse", EndGoAway: "goaway", EndGoAwayNow: "goaway now"}
	if e >= 0 && int(e) < len(names) {
		return names[e]
	}
	return "End(" + strconv.Itoa(int(e)) + ")"
}
