// Package apns sends push notifications to Apple devices.
//
// Most programs want a [Client]: it keeps connections, dials again when one ends,
// sends again what was not processed, and says what became of every [Message].
//
//	key, err := apns.LoadAuthKey("AuthKey_ABC123DEFG.p8", "ABC123DEFG", "DEF123GHIJ")
//	if err != nil {
//		return err
//	}
//	client := &apns.Client{Config: &apns.Config{Key: key, Topic: "com.example.app"}}
//	defer client.Close()
//	_, err = client.Push(ctx, &apns.Message{
//		Token:   token, // in hexadecimal, as the app sent it
//		Payload: apns.AlertPayload("Hello"),
//	})
//	return err
//
// [Client.PushAll] does that for a million of them.
//
// Underneath is a [Conn], which is one connection and decides nothing: [Dial] opens
// it; [Conn.WritePushMsg] sends a message and says whether it was accepted;
// [Conn.Shutdown] ends the conversation.
//
// Instead of a key, Config.TLS may have a provider certificate. [Payload] makes
// what AlertPayload does not: badges, sounds, background pushes, Live Activities.
//
// # Two wires
//
// Apple's servers speak the HTTP/2 provider API, on the ports [ProviderPort] and
// [ProviderAltPort]. Apple closed the binary protocol that came before it, on the
// ports [PushPort] and [FeedbackPort], on 31 March 2021; that lives on in private
// gateways, emulators and test suites. The package speaks both, behind the same
// verbs, and TLS negotiates which: a server that takes HTTP/2 gets it, and one
// that negotiates nothing is a binary gateway or feedback service.
//
// The difference to a caller is when the answer comes. Over HTTP/2 each message
// has its own, which WritePushMsg waits for. A binary gateway is silent about
// what it accepts and says later what it rejects: [Conn.CheckForError] polls for
// that, and Shutdown proves that there is nothing to come. A Client asks for such
// proofs by itself.
//
// # What became of a message
//
// A message has one of four outcomes, and errors.Is tells them apart:
//
//   - accepted: the error is nil. From a Conn on the binary wire it is that of
//     Shutdown that counts;
//   - rejected: a *[PushError]. That the server said so is certain;
//   - [ErrNotSent]: the server never took it, so it is safe to send again. If the
//     error matches [ErrRefused] too, the server refuses the sender, and every
//     message gets the same answer until that is mended;
//   - [ErrInDoubt]: it was sent, and the connection or the caller's context ended
//     before anything was known; or the answer was not one of APNs, but a proxy's.
//
// A message that breaks a rule is not sent at all. The error of that local check
// matches the [Status] or [Reason] with which a server would have rejected it.
//
// On the binary wire a rejection is also the end of the connection: the server
// discards every message written after the rejected one. A Client sends those
// again; a caller of Conn that keeps its messages in the order of their IDs dials
// again and resumes after the one that failed.
//
// # Dead devices
//
// Over HTTP/2 the answer to a push says that its device has lost the app: a
// PushError with [ReasonUnregistered] or [ReasonExpiredToken], and the time. The
// binary feedback service has a list of such devices: [Conn.ReadFeedbackMsg]
// reads a record, [Conn.Feedback] ranges over all.
//
// # Tests, servers and archives
//
// Package apnstest has a server that stands in for all of Apple's services, for
// tests and for trying things out. The records of the binary protocol have their
// codecs here, for both directions: [BuildMsg], [AppendMsg], [ParseMsg] and
// [ReadMsg] for messages, [AppendError] and [ParseError] for the rejection,
// [AppendFeedback] and [ParseFeedback] for the dead devices.
package apns

// The addresses of the HTTP/2 provider API. Its servers listen on ProviderAltPort
// too, for firewalls that let no other HTTPS through.
//
// The source is "Sending notification requests to APNs".
const (
	Production = "api.push.apple.com:443"
	Sandbox    = "api.sandbox.push.apple.com:443"
)

// The ports. A Conn does not look at the number: which wire a server speaks is
// negotiated, and which of the binary services it is shows in the verbs that it
// understands.
const (
	ProviderPort    = 443  // the HTTP/2 provider API
	ProviderAltPort = 2197 // the same
	PushPort        = 2195 // the binary gateway: takes messages
	FeedbackPort    = 2196 // the binary feedback service: lists dead devices
)

// The limits, in bytes. The sources are "Generating a remote notification" for
// those of a payload over HTTP/2, and for the others Table A-2 in the chapter
// "Binary Provider API" of the Local and Remote Notification Programming Guide.
const (
	MaxPayload       = 4096 // a payload over HTTP/2
	MaxVoIPPayload   = 5120 // that of a VoIP push, or a broadcast
	MaxBinaryPayload = 2048 // a payload over the binary wire
	MaxTokenSize     = 100  // a device token, decoded from hexadecimal
)
