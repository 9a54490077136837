module example.com/apns

go 1.26
