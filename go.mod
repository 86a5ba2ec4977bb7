module github.com/throttlekit/throttlekit-go

go 1.26.0
