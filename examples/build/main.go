// Command build encodes a notification for the binary protocol, and decodes encoded ones.
// Run build -h for its usage.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"example.com/apns"
	"example.com/apns/examples/internal/cli"
	"example.com/apns/examples/internal/dump"
)

const help = `Build needs no server: it encodes a notification for the binary protocol. It writes the
bytes to standard output or, on a terminal, a dump of them with a line for each field.

	build [flags] <device-token> <numeric-id> <alert-text>
	build -decode <messages

For example:

	go run ./examples/build -hex c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 1 "Hello"
	go run ./examples/build c0ffee 1 "Hello" | go run ./examples/build -decode

Flags:
`

func main() { cli.Exit(run()) }

func run() error {
	dumped := flag.Bool("hex", false, "write the dump even if standard output is not a terminal")
	decode := flag.Bool("decode", false, "read messages in any format from standard input, and dump them")
	priority := flag.Uint("priority", 0, "the priority, 10 or 5, which selects the framed format; 0 selects the extended format,\nwhich has no priority")
	expiry := flag.Duration("expiry", 0, "how long the server keeps the message for a device that it cannot reach; 0: not at all")
	if err := cli.Parse(help); err != nil {
		return err
	}
	want := 3
	if *decode {
		want = 0
	}
	if flag.NArg() != want {
		return cli.Usagef("number of arguments is %d, expected %d", flag.NArg(), want)
	}
	if *decode {
		b, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return dumpAll(os.Stdout, b)
	}
	id, err := strconv.ParseUint(flag.Arg(1), 10, 32)
	if err != nil {
		return errors.New("numeric id is invalid, expected a number from 0 to 4294967295") // not quoted: it may be a token
	}
	if *expiry < 0 {
		return fmt.Errorf("expiry is %v, expected 0 or more", *expiry)
	}
	if *priority > 255 {
		return fmt.Errorf("priority is %d, expected 10, 5 or 0", *priority)
	}
	m := &apns.Message{
		ID:       uint32(id),
		Token:    flag.Arg(0),
		Payload:  apns.AlertPayload(flag.Arg(2)),
		Expiry:   time.Unix(0, 0),
		Priority: apns.Priority(*priority),
	}
	if *expiry > 0 {
		m.Expiry = time.Now().Add(*expiry)
	}
	b, err := apns.BuildMsg(m)
	if err != nil {
		return err
	}
	if info, err := os.Stdout.Stat(); *dumped || err == nil && info.Mode()&os.ModeCharDevice != 0 {
		return dumpAll(os.Stdout, b)
	}
	_, err = os.Stdout.Write(b)
	return err
}

// dumpAll dumps the messages in b. Its error says where one is malformed.
func dumpAll(w io.Writer, b []byte) (err error) {
	out := bufio.NewWriter(w)
	defer func() { err = errors.Join(out.Flush(), err) }()
	for at, n := 0, 0; ; n++ {
		m, size, err := apns.ParseMsg(b[at:])
		if err == io.EOF {
			return nil
		}
		fields := dump.Message(b[at : at+size])
		for _, f := range fields {
			lines(out, at, f)
		}
		if err != nil {
			broken := at
			for _, f := range fields {
				broken += len(f.Bytes)
			}
			lines(out, at, dump.Field{At: broken - at, Bytes: b[broken:min(len(b), broken+8)], Name: "?", Meaning: "broken here"})
			return fmt.Errorf("message %d, from offset %d on: %w", n+1, at, err)
		}
		fmt.Fprintf(out, "message %d: id %d, token %s, payload %q\n\n", n+1, m.ID, m.Token, m.Payload)
		at += size
	}
}

// lines writes a field of the message at an offset: offset, bytes, name, meaning. It has 8
// bytes per line.
func lines(w io.Writer, offset int, f dump.Field) {
	at := offset + f.At
	first, others := f.Bytes[:min(8, len(f.Bytes))], f.Bytes[min(8, len(f.Bytes)):]
	fmt.Fprintf(w, "%6d  %-23s  %-20s %s\n", at, fmt.Sprintf("% x", first), f.Name, f.Meaning)
	for chunk := range slices.Chunk(others, 8) {
		at += 8
		fmt.Fprintf(w, "%6d  % x\n", at, chunk)
	}
}
