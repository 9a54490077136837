// Package apns sends push notifications to Apple devices.
//
// Most programs need a [Client]. It keeps connections open, reconnects when one ends,
// resends what the server did not process, and reports one outcome for each [Message].
//
//	key, err := apns.LoadAuthKey("AuthKey_ABC123DEFG.p8", "ABC123DEFG", "DEF123GHIJ")
//	if err != nil {
//		return err
//	}
//	client := &apns.Client{Config: &apns.Config{Key: key, BundleID: "com.example.app"}}
//	defer client.Close()
//	_, err = client.Push(ctx, &apns.Message{
//		Token:   token, // in hexadecimal, as the app sent it
//		Payload: apns.AlertPayload("Hello"),
//	})
//	return err
//
// [Payload] makes payloads other than a text: badges, sounds, background pushes, Live
// Activities. [Payload.Message] makes the whole Message.
//
// [Client.Push] sends one message. [Client.PushAll] sends the messages of an iterator,
// a million of them if need be. [Client.PushChan] sends the messages of a channel, for a
// source that may block. [Client.Connect] connects without sending, to find out at
// start-up whether that works.
//
// A [Conn] is a single connection, without reconnecting or resending. [Dial] opens it,
// [Conn.WritePushMsg] sends a message, and [Conn.Shutdown] ends it when all messages are
// answered.
//
// In place of a key, Config.TLS may have a provider certificate, from [LoadCertificate].
// [Channels] manages broadcast channels; a Message with a Channel is a broadcast.
//
// # Outcomes
//
// Each message has one outcome. The error is nil if the server accepted the message; from
// a Conn on the binary protocol this is the error of Shutdown. Otherwise the error matches
// exactly one of these five, by errors.AsType or errors.Is:
//
//   - *[PushError]: rejected. The server said so, about this message.
//   - [ErrNotSent]: not sent. The server did not process the message, so it is safe to
//     send it once more. If the error matches [ErrRefused] as well, the server refuses
//     the sender, and gives every message the same answer until the cause is corrected.
//   - [ErrInDoubt]: in doubt. The message was written, and then the connection or the
//     caller's context ended before there was an answer, or the answer was not from APNs
//     but from a proxy. If the message is sent once more, it may arrive twice.
//   - [ErrInvalid]: invalid. The message breaks a rule, and was not sent. The error also
//     matches the [Status] or [Reason] with which a server would have rejected it. It
//     does not match ErrNotSent, since the same message would fail each time.
//   - [ErrExpired]: expired. The message's Expiry passed while it waited in a Client, and
//     it was not sent.
//
// # Two protocols
//
// Apple's servers speak the HTTP/2 provider API, on the ports [ProviderPort] and
// [ProviderAltPort]. Its predecessor is the binary protocol, on the ports [PushPort] and
// [FeedbackPort]. Apple closed that service on 31 March 2021; the protocol lives on in
// private gateways, emulators and test suites. The package speaks both, through the same
// methods. TLS negotiates the protocol: a server that selects h2 is spoken to over
// HTTP/2, and a server that selects nothing is a binary gateway or feedback service.
//
// The protocols differ in when an outcome is known. Over HTTP/2 each message has its own
// answer, and WritePushMsg waits for it. A binary gateway sends nothing about a message
// that it accepts; it sends an error packet, some time later, for a message that it
// rejects. [Conn.CheckForError] polls for that packet. Shutdown sends a barrier, which is
// a message that the gateway must reject: its rejection confirms that all messages before
// it were accepted. A Client sends barriers by itself.
//
// On the binary protocol a rejection also ends the connection: the server discards every
// message that was written after the rejected one. A Client resends those. A caller of
// Conn numbers its messages in order, dials another connection, and resumes with the
// message after the rejected one.
//
// # Dead devices
//
// A device is dead to an app when the app was removed from it. Over HTTP/2 the answer to
// a push says so: a PushError with [ReasonUnregistered] or [ReasonExpiredToken], and the
// time. The binary feedback service has a list of such devices: [Conn.ReadFeedbackMsg]
// reads one record, and [Conn.Feedback] ranges over all. A record may have a token that
// no device can have; [Feedback.Check] says what is wrong with it.
//
// # Tests, servers and archives
//
// Package apnstest has a server that stands in for all of Apple's push services, for
// tests and for trying things out. This package encodes and decodes the records of the
// binary protocol in both directions: messages with [BuildMsg], [AppendMsg], [ParseMsg]
// and [ReadMsg], error packets with [AppendError] and [ParseError], and feedback records
// with [AppendFeedback] and [ParseFeedback].
package apns

// The addresses of the HTTP/2 provider API. Its servers also listen on ProviderAltPort:
// a firewall can allow that port and block other HTTPS.
//
// The source is "Sending notification requests to APNs".
const (
	Production = "api.push.apple.com:443"
	Sandbox    = "api.sandbox.push.apple.com:443"
)

// The addresses of channel management, for [Channels]. The source is "Sending channel
// management requests to APNs".
const (
	ChannelsProduction = "api-manage-broadcast.push.apple.com:2196"
	ChannelsSandbox    = "api-manage-broadcast.sandbox.push.apple.com:2195"
)

// The ports. A Conn does not depend on the number. TLS negotiates the protocol, and the
// method that is called first decides between the two binary services.
const (
	ProviderPort    = 443  // the HTTP/2 provider API
	ProviderAltPort = 2197 // the same
	PushPort        = 2195 // the binary gateway, which takes messages
	FeedbackPort    = 2196 // the binary feedback service, which lists dead devices
)

// The limits, in bytes. The source for payloads over HTTP/2 is "Generating a remote
// notification". The source for the others is Table A-2 in the chapter "Binary Provider
// API" of the Local and Remote Notification Programming Guide.
const (
	MaxPayload       = 4096 // a payload over HTTP/2
	MaxVoIPPayload   = 5120 // the payload of a VoIP push or a broadcast
	MaxBinaryPayload = 2048 // a payload on the binary protocol
	MaxTokenSize     = 100  // a device token on the binary protocol, decoded from hexadecimal
)
