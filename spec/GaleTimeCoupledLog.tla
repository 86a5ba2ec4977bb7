------------------------- MODULE GaleTimeCoupledLog -------------------------
(* Nodes lease from one shared sliding log. Credits live for Life ticks      *)
(* after the request for them was sent, and the shared log looks back over   *)
(* Shared ticks, which must be Window + Life.                                *)
(* Statement and proof: docs/proofs.md, "Time-coupled".                      *)
EXTENDS Integers

CONSTANTS
    Nodes,      \* the nodes; not empty
    Batch,      \* the most units in one lease
    Limit,      \* units that any Window ticks in a row may admit
    Window,     \* ticks
    Shared,     \* ticks that the log looks back, the present one included
    Life,       \* credits may be spent at this age in ticks, not later
    FromSend    \* TRUE: their age counts from sending; FALSE: from arrival

VARIABLES
    debits,     \* units debited at the present tick, one tick ago, ...
    phase,      \* what each node is at: idle, sent, granted, holding
    age,        \* ticks since it sent, at most Life + 1
    amount,     \* units granted to it
    spent       \* units admitted at the present tick, one tick ago, ...

vars == <<debits, phase, age, amount, spent>>

ASSUME Nodes # {} /\ Batch >= 1 /\ Limit >= 1 /\ Window >= 1 /\ Shared >= 1 /\ Life >= 1
ASSUME FromSend \in BOOLEAN

Min(a, b) == IF a < b THEN a ELSE b

RECURSIVE Sum(_, _)
Sum(f, last) == IF last < 0 THEN 0 ELSE f[last] + Sum(f, last - 1)

Free == Limit - Sum(debits, Shared - 1)

Admitted == Sum(spent, Window - 1)

TypeOK ==
    /\ debits \in [0..(Shared - 1) -> 0..Limit]
    /\ phase \in [Nodes -> {"idle", "sent", "granted", "holding"}]
    /\ age \in [Nodes -> 0..(Life + 1)]
    /\ amount \in [Nodes -> 0..Batch]
    /\ spent \in [0..(Window - 1) -> 0..Limit]
    /\ \A n \in Nodes : phase[n] = "holding" => amount[n] >= 1 /\ age[n] <= Life

Init ==
    /\ debits = [i \in 0..(Shared - 1) |-> 0]
    /\ phase = [n \in Nodes |-> "idle"]
    /\ age = [n \in Nodes |-> 0]
    /\ amount = [n \in Nodes |-> 0]
    /\ spent = [i \in 0..(Window - 1) |-> 0]

Send(n) ==
    /\ phase[n] = "idle"
    /\ phase' = [phase EXCEPT ![n] = "sent"]
    /\ UNCHANGED <<debits, age, amount, spent>>

Debit(n) ==
    /\ phase[n] = "sent"
    /\ Free >= 1
    /\ \E granted \in 1..Min(Batch, Free) :
        /\ debits' = [debits EXCEPT ![0] = @ + granted]
        /\ amount' = [amount EXCEPT ![n] = granted]
    /\ phase' = [phase EXCEPT ![n] = "granted"]
    /\ UNCHANGED <<age, spent>>

Forget(n) ==
    /\ phase' = [phase EXCEPT ![n] = "idle"]
    /\ age' = [age EXCEPT ![n] = 0]
    /\ amount' = [amount EXCEPT ![n] = 0]

Arrive(n) ==
    /\ phase[n] = "granted"
    /\ IF FromSend /\ age[n] > Life
       THEN Forget(n)
       ELSE /\ phase' = [phase EXCEPT ![n] = "holding"]
            /\ age' = [age EXCEPT ![n] = IF FromSend THEN @ ELSE 0]
            /\ UNCHANGED amount
    /\ UNCHANGED <<debits, spent>>

Spend(n) ==
    /\ phase[n] = "holding"
    /\ spent' = [spent EXCEPT ![0] = @ + 1]
    /\ IF amount[n] = 1
       THEN Forget(n)
       ELSE /\ amount' = [amount EXCEPT ![n] = @ - 1]
            /\ UNCHANGED <<phase, age>>
    /\ UNCHANGED debits

Dies(n) == phase[n] = "holding" /\ age[n] = Life

Tick ==
    /\ debits' = [i \in 0..(Shared - 1) |-> IF i = 0 THEN 0 ELSE debits[i - 1]]
    /\ spent' = [i \in 0..(Window - 1) |-> IF i = 0 THEN 0 ELSE spent[i - 1]]
    /\ phase' = [n \in Nodes |-> IF Dies(n) THEN "idle" ELSE phase[n]]
    /\ age' = [n \in Nodes |->
                IF phase[n] = "idle" \/ Dies(n) THEN 0 ELSE Min(Life + 1, age[n] + 1)]
    /\ amount' = [n \in Nodes |-> IF Dies(n) THEN 0 ELSE amount[n]]

Next == Tick \/ \E n \in Nodes : Send(n) \/ Debit(n) \/ Arrive(n) \/ Spend(n)

Spec == Init /\ [][Next]_vars

\* Any Window ticks in a row admit at most Limit units.
WithinWindow == Admitted <= Limit

\* False on purpose: a checker must find the state in which the bound is reached.
NotReached == Admitted <= Limit - 1
=============================================================================
