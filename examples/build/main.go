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
)

const help = `Build writes a notification to standard output, encoded for the binary protocol. On a
terminal it writes a dump of the bytes, with a line for each field.

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
		return errors.New("numeric id is no number or out of range, expected 0 to 4294967295") // not quoted: it may be a token
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
		d := &dump{w: out, b: b[:at+size], at: at}
		d.message()
		if err != nil {
			d.b = b
			d.lines(d.take(8), "?", "broken here")
			return fmt.Errorf("message %d, from offset %d on: %w", n+1, at, err)
		}
		fmt.Fprintf(out, "message %d: id %d, token %s, payload %q\n\n", n+1, m.ID, m.Token, m.Payload)
		at += size
	}
}

// A dump writes a line for each field: offset, bytes, name, meaning.
type dump struct {
	w  io.Writer
	b  []byte
	at int // the offset of the next field
}

var items = map[int]string{1: "device token", 2: "payload", 3: "identifier", 4: "expiry", 5: "priority"}

// message dumps one message, or as much of it as b has.
func (d *dump) message() {
	switch d.number("command", 1, map[int]string{0: "simple format", 1: "extended format", 2: "framed format"}) {
	case 2:
		d.number("frame length", 4, nil)
		for d.at < len(d.b) {
			item := d.number("item", 1, items)
			d.data(items[item], d.number("item length", 2, nil))
		}
		return
	case 1:
		d.data("identifier", 4)
		d.data("expiry", 4)
	}
	for _, name := range []string{"device token", "payload"} {
		d.data(name, d.number(name+" length", 2, nil))
	}
}

// number dumps a field of n bytes that is a number, and returns the number. It returns -1 if
// the field is cut short.
func (d *dump) number(name string, n int, meanings map[int]string) int {
	b := d.take(n)
	if len(b) < n {
		d.cutShort(b, n, name)
		return -1
	}
	v := 0
	for _, c := range b {
		v = v<<8 | int(c)
	}
	meaning := meanings[v]
	if meaning == "" {
		meaning = strconv.Itoa(v)
	}
	d.lines(b, name, meaning)
	return v
}

// data dumps a field of n bytes. Its name says how to show the meaning.
func (d *dump) data(name string, n int) {
	if n < 0 {
		return // its length is missing
	}
	b := d.take(n)
	if len(b) < n {
		d.cutShort(b, n, name)
		return
	}
	meaning := ""
	switch {
	case name == "payload":
		meaning = strconv.Quote(string(b))
	case name == "device token":
		meaning = fmt.Sprintf("%x", b)
	case name == "priority" && n == 1:
		meaning = strconv.Itoa(int(b[0]))
	case n == 4:
		v := int64(b[0])<<24 | int64(b[1])<<16 | int64(b[2])<<8 | int64(b[3])
		meaning = strconv.FormatInt(v, 10)
		if name == "expiry" && v == 0 {
			meaning = "0: one attempt, nothing kept"
		} else if name == "expiry" {
			meaning = time.Unix(v, 0).UTC().Format(time.RFC3339)
		}
	}
	d.lines(b, name, meaning)
}

// cutShort dumps a field of n bytes of which only b is there.
func (d *dump) cutShort(b []byte, n int, name string) {
	if len(b) > 0 {
		d.lines(b, name, fmt.Sprintf("cut short: %d of %d bytes", len(b), n))
	}
}

// take returns the next n bytes, or fewer if b ends before.
func (d *dump) take(n int) []byte {
	n = min(n, len(d.b)-d.at)
	b := d.b[d.at : d.at+n]
	d.at += n
	return b
}

// lines writes the bytes of a field, 8 per line.
func (d *dump) lines(b []byte, name, meaning string) {
	at := d.at - len(b)
	first, others := b[:min(8, len(b))], b[min(8, len(b)):]
	fmt.Fprintf(d.w, "%6d  %-23s  %-20s %s\n", at, fmt.Sprintf("% x", first), name, meaning)
	for chunk := range slices.Chunk(others, 8) {
		at += 8
		fmt.Fprintf(d.w, "%6d  % x\n", at, chunk)
	}
}
