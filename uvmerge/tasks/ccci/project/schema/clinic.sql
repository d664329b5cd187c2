-- Tables of the clinic. Amounts are hundredths, days are like 20240131.
CREATE TABLE insurers (
    id BIGINT PRIMARY KEY,
    name VARCHAR(80) NOT NULL,
    plan VARCHAR(20)
);

CREATE TABLE employers (
    id BIGINT PRIMARY KEY,
    name VARCHAR(80) NOT NULL,
    plan VARCHAR(20)
);

CREATE TABLE med_unit (
    id BIGINT PRIMARY KEY,
    title VARCHAR(80) NOT NULL,
    floor INT
);

CREATE TABLE med_staff (
    id BIGINT PRIMARY KEY,
    display_name VARCHAR(80) NOT NULL,
    specialty VARCHAR(80)
);

CREATE TABLE med_office (
    id BIGINT PRIMARY KEY,
    display_name VARCHAR(80) NOT NULL,
    specialty VARCHAR(80)
);

CREATE TABLE rooms (
    id BIGINT PRIMARY KEY,
    number VARCHAR(8) NOT NULL,
    title VARCHAR(80)
);

CREATE TABLE drugs (
    id BIGINT PRIMARY KEY,
    name VARCHAR(80) NOT NULL,
    form VARCHAR(20),
    strength INT
);

CREATE TABLE lab_assay (
    id BIGINT PRIMARY KEY,
    title VARCHAR(80) NOT NULL,
    unit VARCHAR(12)
);

CREATE TABLE patients (
    id BIGINT PRIMARY KEY,
    given_name VARCHAR(80),
    family_name VARCHAR(80) NOT NULL,
    born INT,
    sex CHAR(1),
    ward BIGINT,
    CONSTRAINT lies_on FOREIGN KEY (ward) REFERENCES med_unit (id)
);

CREATE TABLE appointments (
    id BIGINT PRIMARY KEY,
    patient BIGINT NOT NULL REFERENCES patients (id),
    "with" BIGINT NOT NULL,
    place BIGINT NOT NULL REFERENCES rooms,
    starts_at BIGINT NOT NULL,
    state CHAR(1) NOT NULL,
    fee BIGINT
);

ALTER TABLE appointments ADD CONSTRAINT seen_by FOREIGN KEY ("with") REFERENCES med_staff (id);

CREATE TABLE prescriptions (
    id BIGINT PRIMARY KEY,
    patient BIGINT NOT NULL REFERENCES patients (id),
    issued_by BIGINT NOT NULL REFERENCES med_staff (id),
    drug BIGINT NOT NULL REFERENCES drugs (id),
    dose INT,
    issued_on INT
);

CREATE TABLE lab_results (
    id BIGINT PRIMARY KEY,
    sampled_by BIGINT NOT NULL REFERENCES med_staff (id),
    test BIGINT NOT NULL,
    reading BIGINT,
    sampled_on INT,
    FOREIGN KEY (test) REFERENCES lab_assay (id)
);

CREATE TABLE invoices (
    id BIGINT PRIMARY KEY,
    number VARCHAR(20) NOT NULL,
    payer BIGINT NOT NULL REFERENCES insurers (id),
    amount BIGINT NOT NULL,
    due_on INT NOT NULL
);

CREATE TABLE invoice_items (
    id BIGINT PRIMARY KEY,
    invoice BIGINT NOT NULL REFERENCES invoices (id),
    text VARCHAR(200),
    units INT,
    price BIGINT
);

CREATE TABLE admissions (
    id BIGINT PRIMARY KEY,
    patient BIGINT NOT NULL REFERENCES patients (id),
    station BIGINT NOT NULL REFERENCES med_unit (id),
    attending BIGINT NOT NULL,
    admitted_on INT NOT NULL,
    discharged_on INT,
    reason VARCHAR(200)
);

ALTER TABLE admissions ADD FOREIGN KEY (attending) REFERENCES med_staff (id);

GRANT SELECT ON admissions TO reporting;
