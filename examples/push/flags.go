package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"example.com/apns"
	"example.com/apns/examples/internal/bulk"
	"example.com/apns/examples/internal/cli"
	"example.com/apns/internal/secret"
)

var (
	server       cli.Server
	protocol     = flag.String("protocol", "", "with -local, the `protocol` to speak, h2 (the default) or binary; with other servers, TLS negotiates it")
	id           = flag.String("id", "", "the `number` of the notification on the binary protocol, 0 to 4294967295; the default is 1")
	payload      = flag.String("payload", "", "push the JSON in this `file` unchanged, in place of an alert text")
	tokens       = flag.String("tokens", "", "push to all device tokens in this `file`, one per line; - means standard input")
	duplicates   = flag.Bool("duplicates", false, "with -tokens, push to a line as often as it is in the file")
	retryFile    = flag.String("retry-file", "", "with -tokens, write the lines to try again to this `file`")
	acceptedFile = flag.String("accepted-file", "", "with -tokens, add the lines that were accepted to this `file`")
	asJSON       = flag.Bool("json", false, "write one JSON object per notification to standard output")
	verbose      = flag.Bool("v", false, "with -tokens, print why each notification was not accepted, and log failed connections")
)

// addMessageFlags defines the flags that set fields of the message.
func addMessageFlags(m *apns.Message) {
	flag.StringVar(&m.Topic, "topic", "", "the `topic`, in place of the one that -bundle-id and -type make")
	flag.StringVar((*string)(&m.PushType), "type", "", "the `type` of push, such as alert, background or voip; if empty, the one that the payload shows:\n"+
		"mdm, liveactivity, widgets, background, or else alert")
	flag.StringVar(&m.CollapseID, "collapse-id", "", "an `ID`; on the device a push replaces an earlier one with the same ID")
	flag.Func("priority", "the `priority`: 10 at once, 5 or 1 to save the battery; unset or 0: left to the server", func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || !slices.Contains([]int{0, 1, 5, 10}, n) {
			return errors.New("expected 10, 5 or 1, or 0 to leave it to the server")
		}
		m.Priority = apns.Priority(n)
		return nil
	})
	flag.Func("expiry", "for which `duration`, such as 90m or 24h, the server tries to reach the device; 0: now or never;\n"+
		"unset: left to the server, but on the binary protocol without -priority the same as 0", func(s string) error {
		d, err := time.ParseDuration(s)
		switch {
		case err != nil || d < 0:
			return errors.New("expected a duration from now, as 90m or 24h, or 0 for now or never")
		case d == 0:
			m.Expiry = time.Unix(0, 0)
		default:
			m.Expiry = time.Now().Add(d)
		}
		return nil
	})
}

// manyWords is what to do if there are more arguments than expected.
const manyWords = "put a text of several words in quotes, and flags before the arguments"

// parse parses and checks the command line. It returns the message in it: without a payload
// if that is in a file, and without a token if there are many.
func parse() (*apns.Message, error) {
	m := &apns.Message{ID: 1}
	server.AddFlags("if empty, " + apns.Production)
	addMessageFlags(m)
	if err := cli.Parse(help); err != nil {
		return nil, err
	}
	if *id != "" {
		if err := takeID(m, *id); err != nil {
			return nil, err
		}
	}
	if err := takeArguments(m, flag.Args()); err != nil {
		return nil, err
	}
	if err := check(m); err != nil {
		return nil, err
	}
	return m, nil
}

// takeID takes the numeric id. An error does not quote it: it may be a token or the text.
func takeID(m *apns.Message, s string) error {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return cli.UsageError("numeric id is invalid, expected a number from 0 to 4294967295")
	}
	m.ID = uint32(n)
	return nil
}

// takeArguments takes what is not a flag, in one of the forms of the help.
func takeArguments(m *apns.Message, args []string) error {
	switch n := len(args); {
	case *tokens != "" && *payload != "" && n > 0:
		return cli.Usagef("number of arguments is %d, expected none: -tokens has the device tokens, and -payload what to send", n)
	case *tokens != "" && n > 1:
		return cli.Usagef("number of arguments is %d, expected only the alert text: with -tokens the device tokens are in its file; %s", n, manyWords)
	case *tokens != "" && n == 1:
		m.Payload = apns.AlertPayload(args[0])
		return nil
	case *tokens != "":
		return nil
	case *payload != "" && n != 1:
		return cli.Usagef("number of arguments is %d, expected 1 with -payload: device token, after all flags", n)
	case *payload != "":
		m.Token = args[0]
		return nil
	}
	switch n := len(args); {
	case n == 5 && !server.Local: // of the original: certificate and key come first
		if server.Cert != "" || server.Key != "" {
			return cli.UsageError("a certificate both in front of the device token and in -cert or -key, expected one of them")
		}
		server.Cert, server.Key = args[0], args[1]
		args = args[2:]
		fallthrough
	case n == 3:
		if *id != "" {
			return cli.UsageError("an id both after the device token and in -id, expected one of them")
		}
		if err := takeID(m, args[1]); err != nil {
			return cli.Usagef("%v; %s", err, manyWords)
		}
	case n > 3:
		return cli.Usagef("number of arguments is %d, expected 2: device token, alert text; %s", n, manyWords)
	case n != 2:
		return cli.Usagef("number of arguments is %d, expected 2: device token, alert text", n)
	}
	m.Token, m.Payload = args[0], apns.AlertPayload(args[len(args)-1])
	return nil
}

// check returns an error if flags are missing or contradict each other.
func check(m *apns.Message) error {
	switch {
	case *tokens == "" && *retryFile+*acceptedFile != "":
		return cli.UsageError("-retry-file or -accepted-file without -tokens, expected both")
	case *tokens == "" && (*verbose || *duplicates):
		return cli.UsageError("-v or -duplicates without -tokens, expected both")
	case *tokens != "" && *id != "":
		return cli.UsageError("-id with -tokens, expected one of them: with -tokens the id is the number of the line")
	case *retryFile == "-" || *acceptedFile == "-":
		return cli.UsageError("-retry-file or -accepted-file is -, expected the name of a file")
	case *protocol != "" && *protocol != "h2" && *protocol != "binary":
		return cli.UsageError("-protocol is unknown, expected h2 or binary")
	case *protocol != "" && !server.Local:
		return cli.UsageError("-protocol without -local, expected both: with other servers, TLS negotiates it")
	case server.P8 != "" && server.BundleID == "" && m.Topic == "":
		return cli.UsageError("-p8 without -bundle-id, expected the app's bundle ID: the key is for all of a team's apps")
	}
	return server.Check()
}

// readPayload reads a file that holds a JSON object.
func readPayload(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, secret.FileError(err)
	}
	if err := bulk.CheckPayload(b); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}
