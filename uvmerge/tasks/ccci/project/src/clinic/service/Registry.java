package clinic.service;

import java.util.ArrayList;
import java.util.List;

import clinic.dto.DrugRow;
import clinic.dto.InsurerView;
import clinic.dto.RoomView;
import clinic.entity.Drug;
import clinic.entity.Insurer;
import clinic.entity.Room;

/** What the clinic keeps lists of. */
public class Registry {
    /** An insurer on the screen. */
    public InsurerView view(Insurer insurer) {
        InsurerView view = new InsurerView();
        view.setId(insurer.getId());
        view.setName(insurer.getName());
        view.setPlan(insurer.getPlan());
        return view;
    }

    /** All rooms on the screen. */
    public List<RoomView> views(List<Room> rooms) {
        List<RoomView> views = new ArrayList<>();
        for (Room room : rooms) {
            RoomView view = new RoomView();
            view.setId(room.getId());
            view.setNumber(room.getNumber());
            view.setTitle(room.getTitle());
            views.add(view);
        }
        return views;
    }

    /** A drug in a table. */
    public DrugRow row(Drug drug) {
        return new DrugRow(drug.getName(), drug.getForm(), drug.getStrength());
    }
}
