package main

const help = `Push sends notifications with Apple's production server (-sandbox: with the sandbox).
It prints the outcome: accepted; rejected, and why; not sent; in doubt; invalid; or
expired. The exit status is 0 if all were accepted, 2 for wrong usage, and 1 otherwise.

	push [flags] <device-token> <alert-text>
	push [flags] -payload <file> <device-token>
	push [flags] -tokens <file> [<alert-text>]
	push [flags] -tokens <file> -payload <file>
	push [flags] [<certificate-file> <key-file>] <device-token> <numeric-id> <alert-text>

The last form is that of the original program. The numeric id, also in -id, names the
notification on the binary protocol.

To try it without an Apple account, push to the built-in test server:

	go run ./examples/push -local c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 "Hello"

Push then also prints what the server received. On standard error it prints a warning for
each rule of Apple's that the notification breaks.

To push to a device, use an authentication key or a certificate. A device token is valid
in one environment alone: in production for apps from TestFlight and the App Store, in the
sandbox for apps that Xcode runs.

	go run ./examples/push -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -bundle-id com.example.app <device-token> "Hello"
	go run ./examples/push -sandbox -cert cert.pem -key key.pem <device-token> "Hello"

The push type is that of -type. Without it, it is the one that the payload shows: mdm if
the payload has that key; liveactivity if its aps has event; widgets if aps has
content-changed; background if aps has content-available and nothing else; and alert
otherwise. The other types, such as voip, need -type.

The topic is the -bundle-id with the suffix that the push type demands, such as .voip.
With -topic it is what that says. A certificate for one app needs neither.

To push to a gateway of the binary protocol (Apple closed its own in 2021), give its
address. That protocol has no topic, push type or collapse ID:

	go run ./examples/push -addr gateway.example.com:2195 -cert cert.pem -key key.pem <device-token> 1 "Hello"

MANY DEVICES

Write their tokens to a file or to standard input, one per line:

	go run ./examples/push -local -tokens tokens.txt "Hello"
	go run ./examples/push -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -bundle-id com.example.app -tokens tokens.txt -retry-file retry.txt -accepted-file accepted.txt "Hello"
	go run ./examples/push -cert cert.pem -key key.pem -tokens - -retry-file retry.txt "Hello" <tokens.txt

A line may have a payload of its own, after a tab. Then the alert text may be left out:

	printf 'c0ffee00\t{"aps":{"alert":"Hello, Ada"}}\n' | go run ./examples/push -local -tokens -

Push prints the first 20 lines that it cannot send, and with -v or -json all of them. It
skips blank lines, and a line that is the same as one before it, unless -duplicates is
given. At the end it prints how many notifications were accepted, rejected (by reason), in
doubt, not sent and invalid. On a terminal, a line shows the progress. After Ctrl-C, push
reads no more tokens, waits up to two seconds for the answers to what it has read, and
prints the same summary. A second Ctrl-C kills it.

The -retry-file gets the lines to try again: those that were not sent, also because of
Ctrl-C; those with a rejection that may pass (status 429 or 5xx, or 403, which is about
your credentials); and those in doubt, which may then get the notification twice. It is
overwritten at the start, and stays empty if there is nothing to try again.

The -accepted-file gets the lines that were accepted, after what it already has. Both
files get each line as soon as its outcome is known. So nothing is lost if push is killed:
what remains to be sent is in the list, and not in the file of those accepted.

	grep -vxFf accepted.txt tokens.txt

This compares whole lines, and push writes them without spaces and carriage returns at
their ends. So remove those from the list before the first push.

SCRIPTS

With -json, standard output has one JSON object per notification, as soon as its outcome
is known, and nothing else; the summary goes to standard error. The fields, of which those
without a value are left out:

	line            its number in the file of -tokens; the order is that of the answers
	token           the device token; left out if it is not hexadecimal, or if its line is
	                invalid: it may then be anything
	outcome         accepted, rejected, not_sent, in_doubt, invalid or expired
	reason          what the server said, such as Unregistered
	status          the HTTP status of the rejection, or that of the binary protocol
	dead_at         since when the device is dead (RFC 3339)
	apns_id         the server's ID of the notification
	apns_unique_id  its ID in the Push Notifications Console, only in the sandbox
	retry           true if the same may be accepted later
	error           the text of the error

	go run ./examples/push -local -json c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 "Hello"

FLAGS

`
