package apnstest

import (
	"fmt"
	"strconv"
	"time"

	"example.com/apns"
)

// A Fault ends a connection in an unusual way. A Handler returns it for the message
// at which that is to happen, OnConnect for the connection that was just opened.
//
// On the binary protocol every Fault ends the connection. The zero Fault ends it
// without an error packet.
//
// Over HTTP/2 each message has a stream of its own. A Fault concerns that stream
// alone, unless the constant of End says otherwise. The zero Fault never responds
// to the message.
type Fault struct {
	// Err is what the server sends: an apns.Status, an *apns.PushError with any ID,
	// or any other error that a Handler may return. With nil the server sends nothing
	// and discards the message. With apns.StatusNoError it sends nothing and accepts
	// the message; over HTTP/2 it responds with status 200. Where End allows no response
	// over HTTP/2, Err decides only what the server records. EndRefusedStream and
	// EndGoAwayUnprocessed ignore Err over HTTP/2: the message is discarded.
	Err error

	// Delay is how long the server waits before it sends Err and applies End. On the
	// binary protocol it discards what arrives in the meantime. Zero means no delay.
	Delay time.Duration

	// Split is how many bytes the server writes at a time. Each write is a TLS record
	// of its own. Zero means everything at once. It has no effect on responses over
	// HTTP/2.
	Split int

	// Cut is how many bytes the server leaves out at the end of what it sends: of an
	// error packet or, for a Fault from OnConnect, of the feedback list. Zero means
	// that nothing is left out. It has no effect on responses over HTTP/2.
	Cut int

	// End is how the connection, or over HTTP/2 the stream, ends.
	End End

	// Reason is the reason in the GOAWAY that some Ends send. Empty means a GOAWAY
	// without a reason.
	Reason apns.Reason
}

// Error describes the fault.
func (f Fault) Error() string {
	return fmt.Sprintf("fault: %v, delay %v, split %d, cut %d, end %v", f.Err, f.Delay, f.Split, f.Cut, f.End)
}

// An End is how the server ends a connection, or over HTTP/2 a stream. On the binary
// protocol the server reads and discards what the client still writes, unless the
// constant says otherwise.
//
// The sentences about HTTP/2 are for a Fault from a Handler. A Fault from OnConnect ends
// the connection as on the binary protocol, after a GOAWAY if it has an Err that rejects
// or one of the two Ends that send a GOAWAY.
type End int

const (
	// EndCloseNotify sends TLS's close_notify, then TCP's FIN. Over HTTP/2 the stream
	// ends with the response, and the connection stays open.
	EndCloseNotify End = iota

	// EndOneSegment sends the error packet and the close_notify in one write, and thus in
	// one TCP segment, then the FIN. Over HTTP/2 it is the same as EndCloseNotify.
	EndOneSegment

	// EndFIN sends the FIN without a close_notify. Over HTTP/2 it closes the connection
	// without a GOAWAY.
	EndFIN

	// EndFINThenRST closes the socket: it sends the FIN, then an RST for whatever the
	// client still writes. Over HTTP/2 it closes the connection without a GOAWAY.
	EndFINThenRST

	// EndRST sends an RST. Over HTTP/2 it resets the stream with the code CANCEL.
	EndRST

	// EndSilence sends nothing after Err, keeps the connection open and stops reading. The
	// connection ends when the client closes it. On a real network the server must read to
	// notice that, so it takes 64 KiB more than the system's buffers do. If the client has
	// sent more, the connection ends with CloseClientConnections or Close. Over HTTP/2 the
	// server never responds to the message, and goes on with others.
	EndSilence

	// EndRefusedStream is the same as EndCloseNotify on the binary protocol. Over HTTP/2
	// it resets the stream with the code REFUSED_STREAM: the message was not processed.
	EndRefusedStream

	// EndGoAway is the same as EndCloseNotify on the binary protocol. Over HTTP/2 it
	// sends a GOAWAY, responds to the messages in flight, and then closes the
	// connection.
	EndGoAway

	// EndGoAwayUnprocessed is the same as EndCloseNotify on the binary protocol. Over
	// HTTP/2 it sends a GOAWAY whose last stream is before that of the message, which was
	// therefore not processed, and closes the connection. If the server has processed a
	// message of a later stream during Delay, the last stream is that one.
	EndGoAwayUnprocessed
)

// String returns, for example, "close_notify".
func (e End) String() string {
	names := [...]string{
		EndCloseNotify:       "close_notify",
		EndOneSegment:        "one segment",
		EndFIN:               "FIN",
		EndFINThenRST:        "FIN, then RST",
		EndRST:               "RST",
		EndSilence:           "silence",
		EndRefusedStream:     "REFUSED_STREAM",
		EndGoAway:            "GOAWAY",
		EndGoAwayUnprocessed: "GOAWAY, unprocessed",
	}
	if e >= 0 && int(e) < len(names) {
		return names[e]
	}
	return "End(" + strconv.Itoa(int(e)) + ")"
}
