// Command doctor examines credentials and the connection to a server, and says what is wrong
// and what to do about it. Run doctor -h for its usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/cli"
	"example.com/apns/examples/internal/explain"
)

const help = `Doctor examines credentials and the connection to Apple's production server (-sandbox: to
the sandbox). It prints a line for each thing that it looks at: ok, warning, problem or
unknown; and what to do about a problem. The exit status is 0 if there is no problem, 1 if
there is one, and 2 for wrong usage.

	doctor [flags]

Without an Apple account it examines the built-in test server:

	go run ./examples/doctor -local -probe

Doctor says what the credentials are: a key's IDs; a certificate's topics, environments and
expiry. It connects, and says what TLS has negotiated and which certificates the server has:

	go run ./examples/doctor -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ
	go run ./examples/doctor -sandbox -cert cert.pem -key key.pem

A server judges a key, and the topic, with the first push. With -probe, doctor sends one push
to a token that no device has. If the credentials are in order, the answer is BadDeviceToken.
Apple counts that as an error, so do not probe in a loop. Then doctor makes a request that
is no push, for the server's clock; not every server tells it.

	go run ./examples/doctor -probe -p8 AuthKey_ABC123DEFG.p8 -key-id ABC123DEFG -team-id DEF123GHIJ -bundle-id com.example.app

FLAGS

`

// impossible is a token that no device has.
var impossible = strings.Repeat("00", 32)

var (
	server  cli.Server
	probing = flag.Bool("probe", false, "send a push to an impossible token, so that the server judges the credentials; Apple counts it as an error")
)

func main() {
	healthy, err := run()
	cli.Exit(err)
	if !healthy {
		os.Exit(1)
	}
}

func run() (healthy bool, err error) {
	server.AddFlags("if empty, " + apns.Production)
	if err := cli.Parse(help); err != nil {
		return false, err
	}
	if flag.NArg() > 0 {
		return false, cli.Usagef("number of arguments is %d, expected none", flag.NArg())
	}
	switch err := server.Check(); {
	case err != nil:
		return false, err
	case *probing && server.P8 != "" && server.BundleID == "":
		return false, cli.UsageError("-probe with -p8 and without -bundle-id, expected the app's bundle ID: the key is for all of a team's apps")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	if server.Local {
		test := apnstest.NewServer(func(m *apns.Message) error {
			if m.Token == impossible {
				return apns.ReasonBadDeviceToken
			}
			return nil
		})
		defer test.Close()
		return examine(ctx, test.HTTP2Addr, test.TokenConfig()), nil
	}
	config, err := server.Config()
	if err != nil {
		var c chart
		c.problem("credentials", err)
		return c.isHealthy(), nil
	}
	return examine(ctx, server.Address(), config), nil
}

// A chart prints what was found.
type chart struct{ problems int }

func (c *chart) line(finding, about, format string, args ...any) {
	fmt.Printf("%-8s %-12s %s\n", finding, about, fmt.Sprintf(format, args...))
	if finding == "problem" {
		c.problems++
	}
}

// problem prints an error and what to do about it.
func (c *chart) problem(about string, err error) {
	c.line("problem", about, "%s", strings.TrimPrefix(err.Error(), "apns: "))
	if text := explain.Error(err); text != "" {
		fmt.Printf("%-21s %s\n", "", text)
	}
}

func (c *chart) isHealthy() bool {
	if c.problems == 0 {
		fmt.Println("\nNo problem was found.")
	} else {
		fmt.Println("\nproblems:", c.problems)
	}
	return c.problems == 0
}

// judge prints what the answer to the probe says about the credentials.
func (c *chart) judge(err error) {
	switch {
	case errors.Is(err, apns.ReasonBadDeviceToken):
		c.line("ok", "probe", "the server takes the credentials and the topic: its answer is BadDeviceToken, as it should be")
	case err == nil:
		c.line("ok", "probe", "the server takes the credentials, and even a token that no device has")
	default:
		c.problem("probe", err)
	}
}
