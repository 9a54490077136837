// Package cli is shared by the programs: it has the flags for a server and its credentials,
// and reports what is wrong with a command line.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A UsageError says what is wrong with the command line.
type UsageError string

func (e UsageError) Error() string { return string(e) }

// Usagef returns a UsageError.
func Usagef(format string, args ...any) error { return UsageError(fmt.Sprintf(format, args...)) }

// Parse parses the command line into the flags of flag.CommandLine. With -h it prints the
// help and the flags, and ends the program. Any error is a UsageError of one line. It shows no
// value, and no argument that is hardly the name of a flag: they may be a key, a token or a text
// in the wrong place, and what a program prints ends up in logs.
func Parse(help string) error {
	flags := flag.CommandLine
	var failed *checkedValue
	var checked []*checkedValue
	flags.VisitAll(func(f *flag.Flag) {
		v := &checkedValue{Value: f.Value, flag: f, failed: &failed}
		f.Value = v
		checked = append(checked, v)
	})
	flags.Init(program(), flag.ContinueOnError)
	flags.SetOutput(io.Discard) // otherwise an unknown flag is followed by all of the help
	err := flags.Parse(os.Args[1:])
	for _, v := range checked { // PrintDefaults looks at the types of the values
		v.flag.Value = v.Value
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(os.Stdout)
		fmt.Print(help)
		flags.PrintDefaults()
		os.Exit(0)
	case err == nil:
		return nil
	case failed != nil:
		return Usagef("-%s is invalid, %s", failed.flag.Name, failed.expected())
	}
	return UsageError(plain(err.Error()))
}

// A checkedValue notes that its flag has an invalid value. The error of package flag quotes
// the value.
type checkedValue struct {
	flag.Value
	flag   *flag.Flag
	failed **checkedValue
	err    error // of the last Set
}

func (v *checkedValue) Set(s string) error {
	if v.err = v.Value.Set(s); v.err != nil {
		*v.failed = v
	}
	return v.err
}

// IsBoolFlag says for package flag whether the flag needs no value.
func (v *checkedValue) IsBoolFlag() bool {
	b, ok := v.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// expected returns what the flag expects. A flag with a function of its own says it in the
// function's error, which must not quote the value.
func (v *checkedValue) expected() string {
	getter, ok := v.Value.(flag.Getter)
	if !ok {
		return v.err.Error()
	}
	switch getter.Get().(type) {
	case bool:
		return "expected true or false"
	case time.Duration:
		return "expected a duration, such as 90m or 24h"
	case int:
		return "expected a number"
	case uint:
		return "expected a number of 0 or more"
	}
	return "expected another value"
}

// plain returns the text of an error of package flag that is not about a value. It leaves out
// an argument that is hardly the name of a flag.
func plain(text string) string {
	if strings.HasPrefix(text, "flag needs an argument: ") {
		return text // the flag exists
	}
	name, ok := strings.CutPrefix(text, "flag provided but not defined: -")
	switch {
	case ok && mayBeFlag(name):
		return text
	case strings.Contains(text, "-----"):
		return "a text in PEM is in the place of a flag, expected the name of its file"
	}
	return "an argument that begins with - is no flag (not shown, since it may be a secret), expected -- before a text that begins with -"
}

// mayBeFlag reports whether a name is one that a misspelled flag may have: short, and with
// nothing but small letters, digits and dashes.
func mayBeFlag(name string) bool {
	return len(name) < 20 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Exit ends the program if there is an error: with status 2 if it is a UsageError, and with 1
// otherwise.
func Exit(err error) {
	if usage, ok := errors.AsType[UsageError](err); ok {
		fmt.Fprintf(os.Stderr, "%s: %v; see %[1]s -h\n", program(), usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func program() string { return filepath.Base(os.Args[0]) }
