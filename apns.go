// Package apns sends push notifications over Apple's binary provider protocol.
//
// [Dial] opens a TLS connection to a gateway; [Conn.WritePushMsg] sends a
// [Message] over it; [Conn.CheckForError] polls for the gateway's rejection,
// the only thing it ever answers; [Conn.Shutdown] ends the conversation and
// proves that every message was accepted, or names the one that was not.
//
//	conn, err := apns.Dial(ctx, "gateway.example.com:2195", &apns.Config{
//		TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
//	})
//	if err != nil {
//		return err
//	}
//	defer conn.Close()
//	err = conn.WritePushMsg(ctx, &apns.Message{
//		ID:      1,
//		Token:   token, // in hexadecimal, as the app sent it
//		Payload: apns.AlertPayload("Hello"),
//	})
//	if err != nil {
//		return err
//	}
//	return conn.Shutdown(ctx) // nil: the gateway took it
//
// # The state of the protocol
//
// Apple closed this service, ports [PushPort] and [FeedbackPort] of its
// gateways, on 31 March 2021. It lives on in private gateways, emulators and
// test suites: those are what the package speaks to. Package apnstest has such
// a server, for tests and for trying things out.
//
// # What became of a message
//
// A message has one of four fates, and errors.Is tells them apart:
//
//   - accepted: Shutdown returned nil, or a *[PushError] named a later message;
//   - rejected: a *[PushError] names it. That the server said so is certain;
//   - [ErrNotSent]: the server never took it, so it is safe to send again;
//   - [ErrInDoubt]: it was written, and the connection or the caller's context
//     ended before anything was known.
//
// A rejection is also the end of the connection: the server discards every
// message written after the rejected one. A caller that keeps its messages in
// the order of their IDs dials again and resumes after the one that failed.
//
// # Dead devices
//
// The feedback service lists the devices from which the app was removed:
// [Conn.ReadFeedbackMsg] reads a record, [Conn.Feedback] ranges over all.
//
// # Servers and archives
//
// Each record has its codec here, for both directions: [BuildMsg], [AppendMsg],
// [ParseMsg] and [ReadMsg] for messages, [AppendError] and [ParseError] for the
// rejection, [AppendFeedback] and [ParseFeedback] for the dead devices.
package apns

// The ports of the binary services. A Conn does not look at the number: which
// of the two services a server is shows in the verbs that it understands.
const (
	PushPort     = 2195 // takes messages
	FeedbackPort = 2196 // lists dead devices
)

// The limits of the binary protocol, in bytes. The source of both is Table A-2
// in the chapter "Binary Provider API" of Apple's Local and Remote Notification
// Programming Guide.
const (
	MaxTokenSize     = 100  // a device token, decoded from hexadecimal
	MaxBinaryPayload = 2048 // a payload
)
