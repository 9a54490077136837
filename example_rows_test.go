package apns_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Messages come from a database, and the loop ends before they do. A query may block, so
// the sequence has a context, which the caller cancels before it breaks the loop.
func ExampleClient_PushAll_rows() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	client := &apns.Client{Config: server.Config()}
	defer client.Close()

	db := sql.OpenDB(devicesTable{})
	defer db.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var queryErr error
	sent := 0
	for r := range client.PushAll(ctx, greetings(ctx, db, &queryErr)) {
		if r.Err != nil {
			log.Print(r.Err)
		}
		if sent++; sent == 3 {
			cancel() // ends the query, so that the loop can end
			break
		}
	}
	fmt.Println(sent, "sent, query:", errors.Is(queryErr, context.Canceled) || queryErr == nil)
	// Output: 3 sent, query: true
}

// greetings returns a message for each device in the table. *err is valid once the sequence
// has ended.
func greetings(ctx context.Context, db *sql.DB, err *error) iter.Seq[*apns.Message] {
	return func(yield func(*apns.Message) bool) {
		var rows *sql.Rows
		if rows, *err = db.QueryContext(ctx, "SELECT token FROM devices"); *err != nil {
			return
		}
		defer rows.Close()
		for rows.Next() {
			m := &apns.Message{Topic: apnstest.BundleID, Payload: apns.AlertPayload("Hello")}
			if *err = rows.Scan(&m.Token); *err != nil || !yield(m) {
				return
			}
		}
		*err = rows.Err()
	}
}

// A devicesTable is a database with a large table.
type devicesTable struct{ n int }

func (devicesTable) Connect(context.Context) (driver.Conn, error) { return devicesTable{}, nil }
func (devicesTable) Driver() driver.Driver                        { return nil }
func (devicesTable) Prepare(string) (driver.Stmt, error)          { return devicesTable{}, nil }
func (devicesTable) Begin() (driver.Tx, error)                    { return nil, errors.ErrUnsupported }
func (devicesTable) Close() error                                 { return nil }
func (devicesTable) NumInput() int                                { return 0 }
func (devicesTable) Exec([]driver.Value) (driver.Result, error)   { return nil, errors.ErrUnsupported }
func (devicesTable) Query([]driver.Value) (driver.Rows, error)    { return new(devicesTable), nil }
func (devicesTable) Columns() []string                            { return []string{"token"} }

func (t *devicesTable) Next(row []driver.Value) error {
	if t.n++; t.n > 1e6 {
		return io.EOF
	}
	row[0] = fmt.Sprintf("%064x", t.n)
	return nil
}
