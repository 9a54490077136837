package apns_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"log"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Messages come from a database, whose query fails after some rows. The sequence then ends as
// if there were no more, so the caller looks at the query's error after the loop. A query may
// block, so the sequence has a context. A caller that breaks the loop cancels it before.
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
		if errors.Is(r.Err, apns.ErrRefused) {
			cancel() // ends the query, so that the loop can end
			break
		}
		if r.Err != nil {
			log.Print(r.Err) // and continue
			continue
		}
		sent++
	}
	if queryErr != nil {
		fmt.Printf("%d accepted, the other devices are unknown: %v\n", sent, queryErr)
		return // a program returns queryErr here
	}
	fmt.Println("all accepted:", sent)
	// Output: 3 accepted, the other devices are unknown: the database is gone
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

// A devicesTable is a database that fails after three rows.
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
	if t.n++; t.n > 3 {
		return errors.New("the database is gone")
	}
	row[0] = fmt.Sprintf("%064x", t.n)
	return nil
}
