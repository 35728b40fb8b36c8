module github.com/artstore/artstore-pki/bench

go 1.26

replace github.com/artstore/artstore-pki => ../
